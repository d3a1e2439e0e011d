"""Background phases: what field inhomogeneity and receive chain add to a magnitude image."""

import math

import torch
from torch import Tensor

from medrecon.errors import UsageError


def smooth_phase(
    shape: tuple[int, int], generator: torch.Generator, *, strength: float = math.pi / 2, order: int = 3
) -> Tensor:
    r"""Draw a smooth phase in radians, float32 ``(H, W)``.

    .. math:: \varphi(u, v) = \varphi_0 + \sum_{0 < p + q \le order} \frac{a_{pq}}{p^2 + q^2}
              \cos(\pi p u) \cos(\pi q v), \quad u, v \in [0, 1],

    with Gaussian :math:`a_{pq}` scaled to the wanted strength and a uniform constant.

    Parameters
    ----------
    shape
        ``(H, W)``.
    generator
        CPU generator.
    strength
        Standard deviation of the phase over the image, without the constant; 0 leaves the constant.
    order
        Highest number of half waves across the image.

    >>> phase = smooth_phase((8, 8), torch.Generator().manual_seed(0))
    >>> image = torch.polar(torch.ones(8, 8), phase)
    """
    if order < 1 or strength < 0:
        raise UsageError(f"smooth_phase: expected order >= 1 and strength >= 0, got {order} and {strength}")
    amplitudes = torch.randn((order + 1, order + 1), dtype=torch.float64, generator=generator)
    constant = 2 * math.pi * torch.rand(1, dtype=torch.float64, generator=generator)
    square = torch.arange(order + 1, dtype=torch.float64) ** 2
    waves = square[:, None] + square[None]
    index = torch.arange(order + 1)
    kept = ((index[:, None] + index[None]) <= order) & (waves > 0)
    amplitudes = torch.where(kept, amplitudes / waves.clamp(min=1), 0)
    rows, columns = (_cosines(size, order) for size in shape)
    phase = rows @ amplitudes @ columns.T
    spread = phase.std(correction=0)
    # a plane of one pixel has no spread to scale
    phase = phase * (strength / spread) if spread > 0 else torch.zeros_like(phase)
    return (phase + constant).float()


def _cosines(size: int, order: int) -> Tensor:
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    return torch.cos(math.pi * position[:, None] * torch.arange(order + 1))
