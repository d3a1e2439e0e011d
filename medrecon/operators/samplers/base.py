"""What every undersampling mask shares: the sampler's one method, its seed and its centre."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from medrecon.errors import UsageError


@runtime_checkable
class MaskSampler(Protocol):
    """An immutable distribution of undersampling masks over centred k-space.

    The zero frequency of a plane ``(H, W)`` is sample ``(H // 2, W // 2)``; line masks undersample
    the phase encoding ``W`` only. For 3-D scans the plane is ``(ky, kz)``.
    """

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask: bool, ``(1, W)`` for lines, ``(H, W)`` for two-dimensional patterns.

        Parameters
        ----------
        shape
            Plane ``(H, W)`` that is sampled.
        generator
            CPU generator; the same state gives the same mask on every machine and device.
        """
        ...


def effective_acceleration(mask: Tensor) -> float:
    """Positions of the full grid divided by positions sampled.

    >>> effective_acceleration(torch.tensor([[True, False, False, True]]))
    2.0
    """
    sampled = int(torch.count_nonzero(mask))
    return mask.numel() / sampled if sampled else float("inf")


def derived_seed(generator: torch.Generator) -> int:
    """Draw a 32-bit seed, for algorithms that are defined on another library's generator."""
    return int(torch.randint(2**32, (1,), generator=cpu_generator(generator)))


def cpu_generator(generator: torch.Generator) -> torch.Generator:
    """Return the generator if it lives on the CPU: only there is the same seed the same draw everywhere."""
    if generator.device.type != "cpu":
        raise UsageError(
            f"a sampler draws on the CPU so that a seed means the same on every device; got a generator on "
            f"{generator.device}: pass torch.Generator().manual_seed(seed) and move what is drawn"
        )
    return generator


def plane(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the shape if it is one of a plane ``(H, W)``."""
    if len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"a mask is drawn over a plane (H, W) of positive size, got {tuple(shape)}")
    return int(shape[0]), int(shape[1])


def centre(size: int, count: int) -> slice:
    """Return the ``count`` central samples of an axis; they hold ``size // 2`` as soon as there is one."""
    start = (size - count + 1) // 2
    return slice(start, start + count)


def centre_count(owner: str, size: int, fraction: float) -> int:
    """Count the central samples, refusing a fraction that silently rounds to none."""
    count = round(size * fraction)
    if count == 0 and fraction > 0:
        raise UsageError(
            f"{owner}: center_fraction {fraction:g} of {size} samples rounds to none; "
            f"use at least {0.5 / size:.3g}, or 0 for no fully sampled centre"
        )
    return count
