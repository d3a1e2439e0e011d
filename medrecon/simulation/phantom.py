"""Numerical phantoms: the Shepp-Logan head, random brain-like slices, random ellipses."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.errors import UsageError


class Ellipse(NamedTuple):
    """An ellipse in units of half the field of view; x to the right, y down, angle in radians."""

    value: float
    half_x: float
    half_y: float
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0


# Shepp and Logan, IEEE Trans. Nucl. Sci. 21:21, 1974, with Toft's intensities (values add up)
_SHEPP_LOGAN = (
    Ellipse(1.0, 0.69, 0.92),
    Ellipse(-0.8, 0.6624, 0.874, 0.0, 0.0184),
    Ellipse(-0.2, 0.11, 0.31, 0.22, 0.0, math.radians(18)),
    Ellipse(-0.2, 0.16, 0.41, -0.22, 0.0, math.radians(-18)),
    Ellipse(0.1, 0.21, 0.25, 0.0, -0.35),
    Ellipse(0.1, 0.046, 0.046, 0.0, -0.1),
    Ellipse(0.1, 0.046, 0.046, 0.0, 0.1),
    Ellipse(0.1, 0.046, 0.023, -0.08, 0.605),
    Ellipse(0.1, 0.023, 0.023, 0.0, 0.606),
    Ellipse(0.1, 0.023, 0.046, 0.06, 0.605),
)


def shepp_logan(shape: tuple[int, int]) -> Tensor:
    """Return the modified Shepp-Logan head, float32 ``(1, H, W)`` in [0, 1].

    >>> shepp_logan((64, 64)).shape
    torch.Size([1, 64, 64])
    """
    image = torch.zeros(_checked(shape), dtype=torch.float64)
    for ellipse in _SHEPP_LOGAN:
        image += ellipse.value * coverage(ellipse, shape)
    return image.clamp(0, 1).float()[None]


def brain_phantom(count: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw slices of brain-like ellipses, float32 ``(count, H, W)`` in [0, 1].

    Scalp, skull, grey and white matter, ventricles and small structures of random size, position and
    intensity, painted over one another with edges that are antialiased over one pixel.
    """
    _checked(shape)
    return torch.stack([_brain(shape, generator) for _ in range(count)]) if count else torch.zeros((0, *shape))


def random_ellipses(count: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw slices of overlapping ellipses inside a large one, float32 ``(count, H, W)`` in [0, 1].

    From 5 to 30 of any size, place and sign, whose values add up: the usual training set where there is no other
    (Adler and Öktem, Inverse Problems 33:124007, 2017).
    """
    _checked(shape)
    return torch.stack([_ellipses(shape, generator) for _ in range(count)]) if count else torch.zeros((0, *shape))


def _ellipses(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    body = Ellipse(0.5, 0.85, 0.85)
    inside = coverage(body, shape)
    image = body.value * inside
    for _ in range(5 + int(torch.randint(26, (1,), generator=generator))):
        value, half_x, half_y, radius, place, angle = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        radius, place = 0.8 * math.sqrt(radius), 2 * math.pi * place
        part = Ellipse(
            0.8 * value - 0.4,
            0.03 + 0.3 * half_x,
            0.03 + 0.3 * half_y,
            radius * math.cos(place),
            radius * math.sin(place),
            math.pi * angle,
        )
        image = image + part.value * coverage(part, shape) * inside
    return image.clamp(0, 1).float()


def coverage(ellipse: Ellipse, shape: tuple[int, int]) -> Tensor:
    """Return how much of every pixel the ellipse covers (to first order), float64 ``(H, W)`` in [0, 1]."""
    height, width = shape
    y = (2 * torch.arange(height, dtype=torch.float64)[:, None] + 1) / height - 1 - ellipse.y
    x = (2 * torch.arange(width, dtype=torch.float64)[None, :] + 1) / width - 1 - ellipse.x
    cos, sin = math.cos(ellipse.angle), math.sin(ellipse.angle)
    along, across = (x * cos + y * sin) / ellipse.half_x, (y * cos - x * sin) / ellipse.half_y
    level = (along.square() + across.square()).sqrt().clamp(min=1e-9)
    slope = ((along / ellipse.half_x).square() + (across / ellipse.half_y).square()).sqrt().clamp(min=1e-9) / level
    pixels = (1 - level) / slope * min(height, width) / 2  # signed distance to the edge
    return (pixels + 0.5).clamp(0, 1)


def _brain(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, dtype=torch.float64, generator=generator))

    head_x, head_y = uniform(0.62, 0.78), uniform(0.78, 0.92)
    tilt, x0, y0 = uniform(-0.15, 0.15), uniform(-0.05, 0.05), uniform(-0.05, 0.05)
    grey, white, fluid = uniform(0.45, 0.6), uniform(0.65, 0.85), uniform(0.1, 1.0)

    def placed(value: float, half_x: float, half_y: float, x: float = 0, y: float = 0, angle: float = 0) -> Ellipse:
        """Place an ellipse given relative to the head."""
        along, across = x * head_x, y * head_y
        cos, sin = math.cos(tilt), math.sin(tilt)
        centre = (x0 + along * cos - across * sin, y0 + along * sin + across * cos)
        return Ellipse(value, half_x * head_x, half_y * head_y, *centre, tilt + angle)

    parts = [
        placed(uniform(0.7, 1.0), 1, 1),  # scalp
        placed(uniform(0.02, 0.1), 0.95, 0.95),  # skull
        placed(grey, uniform(0.86, 0.9), uniform(0.86, 0.9)),
    ]
    parts += [
        placed(white, uniform(0.3, 0.38), uniform(0.6, 0.72), side * 0.4, uniform(-0.04, 0.04), 0.1 * side)
        for side in (-1, 1)
    ]
    for _ in range(12):  # cortical folds
        angle, radius = uniform(0, 2 * math.pi), uniform(0.45, 0.8)
        half = uniform(0.03, 0.1)
        place = (radius * math.cos(angle), radius * math.sin(angle), uniform(0, math.pi))
        parts.append(placed(uniform(0.35, 0.9), half, half * uniform(0.3, 1), *place))
    for side in (-1, 1):
        size = (uniform(0.05, 0.1), uniform(0.18, 0.3))
        parts.append(placed(fluid, *size, side * uniform(0.1, 0.16), uniform(-0.1, 0.1), 0.25 * side))
    for _ in range(int(uniform(1, 7))):  # small structures and lesions
        half = uniform(0.015, 0.06)
        place = (uniform(-0.5, 0.5), uniform(-0.5, 0.5), uniform(0, math.pi))
        parts.append(placed(uniform(0.05, 1.0), half, half * uniform(0.5, 1), *place))
    image = torch.zeros(shape, dtype=torch.float64)
    for part in parts:
        covered = coverage(part, shape)
        image = image * (1 - covered) + part.value * covered
    return image.float()


def _checked(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"a phantom fills a plane (H, W) of positive size, got {tuple(shape)}")
    return shape
