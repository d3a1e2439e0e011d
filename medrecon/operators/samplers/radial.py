"""Radial spokes on the Cartesian grid: the look of a radial scan with an exact inverse FFT."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers import checks
from medrecon.operators.samplers.base import cpu_generator, plane
from medrecon.operators.samplers.density import normalised_radius

GOLDEN_ANGLE = np.pi * (np.sqrt(5) - 1) / 2  # 111.25 degrees


@dataclass(frozen=True)
class RadialSpokes:
    """Diameters of the inscribed ellipse at golden-angle increments, rounded to the grid.

    The first angle is random. Spokes are added until ``round(H * W / acceleration)`` positions are
    sampled; the last one is cut to its innermost samples so that the count is exact.

    Parameters
    ----------
    acceleration
        Positions of the whole rectangle divided by positions sampled; at least 1.5, because the
        corners stay empty.
    """

    acceleration: float

    def __post_init__(self) -> None:
        checks.real(type(self).__name__, "acceleration", self.acceleration, 1.5)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask, bool ``(H, W)``."""
        height, width = plane(shape)
        wanted = max(round(height * width / self.acceleration), 1)
        inside = int((normalised_radius((height, width)) <= 1).sum())
        if wanted > 0.95 * inside:
            raise UsageError(
                f"{type(self).__name__}: acceleration {self.acceleration:g} wants {wanted} samples of a "
                f"{height}x{width} plane whose ellipse holds {inside}; raise acceleration or take a larger plane"
            )
        angle = float(torch.rand(1, dtype=torch.float64, generator=cpu_generator(generator))) * np.pi
        mask = np.zeros(height * width, dtype=bool)
        missing = wanted
        while missing > 0:
            spoke = _spoke(height, width, angle)
            fresh = spoke[~mask[spoke]][:missing]
            mask[fresh] = True
            missing -= len(fresh)
            angle += GOLDEN_ANGLE
        return torch.from_numpy(mask.reshape(height, width))


def _spoke(height: int, width: int, angle: float) -> NDArray[np.int64]:
    """Flat positions of one diameter, from the centre outwards, each once."""
    half_y, half_x = height // 2, width // 2
    # steps below half a sample leave no gap
    along = np.linspace(0, 1, 2 * max(half_y, half_x) + 1)
    along = np.stack([along, -along], axis=1).ravel()
    y = np.rint(along * half_y * np.sin(angle)).astype(np.int64) + half_y
    x = np.rint(along * half_x * np.cos(angle)).astype(np.int64) + half_x
    # an even axis holds -size/2 but not +size/2
    flat = (y * width + x)[(y < height) & (x < width)]
    _, first = np.unique(flat, return_index=True)
    return flat[np.sort(first)]
