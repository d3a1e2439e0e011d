"""Pixel-driven back-projection of fan beams, as filtered back-projection needs it, in plain torch.

A pixel P gets from every view what the detector reads where the ray through P meets it, linearly
interpolated, times (SOD / L)². With a = (P - S)·e along the detector and b = (P - S)·n towards it,
a flat detector reads at u = SDD a/b and L = b; an arc reads at u = SDD atan2(a, b) and L = |P - S|
(Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, sections 3.4.1 and 3.4.2).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class FanGrid(NamedTuple):
    """Where detector and pixels lie, all lengths in one unit.

    Parameters
    ----------
    orbit
        Source to axis.
    bins_per_length
        Bins per length on the virtual scale SDD · tan γ (flat) or SDD · γ (arc), times SDD.
    zero
        Bin, fractional, that the central ray meets.
    arc
        Whether the detector is an arc around the source.
    x0, y0, pixel
        Centre of the first pixel, and the size of one; Y falls with the row.
    """

    orbit: float
    bins_per_length: float
    zero: float
    arc: bool
    x0: float
    y0: float
    pixel: float


def backproject(sinogram: Tensor, frames: Tensor, grid: FanGrid, height: int, width: int) -> Tensor:
    """Return the weighted sums (N, height, width) of sinograms (N, views, bins).

    Parameters
    ----------
    sinogram
        (N, views, bins).
    frames
        (views, 4) float64: source position and direction of the detector axis.
    grid, height, width
        The geometry.
    """
    result = sinogram.new_zeros((sinogram.shape[0], height * width))
    for view, frame in enumerate(frames.tolist()):
        left, right, at = _taps(frame, grid, height, width, sinogram)
        row = torch.nn.functional.pad(sinogram[:, view], (1, 1))
        result += row[:, at] * left + row[:, at + 1] * right
    return result.view(-1, height, width)


def project(image: Tensor, frames: Tensor, grid: FanGrid, bins: int) -> Tensor:
    """Return the transpose: sinograms (N, views, bins) of images (N, H, W)."""
    number, height, width = image.shape
    result = image.new_zeros((number, frames.shape[0], bins + 2))
    flat = image.flatten(1)
    for view, frame in enumerate(frames.tolist()):
        left, right, at = _taps(frame, grid, height, width, result[..., 1:-1])
        result[:, view].index_add_(1, at, flat * left).index_add_(1, at + 1, flat * right)
    return result[..., 1:-1].contiguous()


def _taps(frame: list[float], grid: FanGrid, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both weights and the left bin (in a row that is padded by one) for every pixel."""
    sx, sy, ex, ey = frame
    x = grid.x0 - sx + grid.pixel * torch.arange(width, dtype=torch.float64, device=like.device)
    y = (grid.y0 - sy - grid.pixel * torch.arange(height, dtype=torch.float64, device=like.device))[:, None]
    a, b = x * ex + y * ey, y * ex - x * ey
    if grid.arc:
        at, weight = torch.atan2(a, b), grid.orbit**2 / (a**2 + b**2)
    else:
        at, weight = a / b, (grid.orbit / b) ** 2
    at = (at * grid.bins_per_length + grid.zero).clamp(-1, like.shape[2]).flatten()
    left = at.floor().clamp(-1, like.shape[2] - 1)
    fraction, weight = at - left, weight.flatten()
    return (weight * (1 - fraction)).to(like.dtype), (weight * fraction).to(like.dtype), left.long() + 1


def grid_of(
    *, orbit: float, distance: float, pitch: float, bins: int, offset: float, arc: bool, size: tuple[int, int],
    pixel: float, center: tuple[float, float],
) -> FanGrid:  # fmt: skip
    """Return the grid of a scanner: SOD, SDD, pitch and offset of the detector, and of an image (H, W), in mm."""
    height, width = size
    return FanGrid(
        orbit=orbit,
        bins_per_length=distance / pitch,
        zero=(bins - 1) / 2 - offset / pitch,
        arc=arc,
        x0=center[0] - (width - 1) / 2 * pixel,
        y0=center[1] + (height - 1) / 2 * pixel,
        pixel=pixel,
    )


def fan_angles(grid: FanGrid, bins: int) -> Tensor:
    """Return γ of every bin, (bins,) float64."""
    u = (torch.arange(bins, dtype=torch.float64) - grid.zero) / grid.bins_per_length
    return u if grid.arc else torch.atan(u)


def equiangular_step(grid: FanGrid) -> float:
    """Return the fan angle between two bins of an arc, 0 for a flat detector."""
    step = 1 / grid.bins_per_length if grid.arc else 0.0
    return step if math.isfinite(step) else 0.0
