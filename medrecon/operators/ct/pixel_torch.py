"""Pixel-driven back-projection, as filtered back-projection needs it, in plain torch.

A pixel P gets from every view what the detector reads where the ray through P meets it, linearly
interpolated. Unlike the adjoint it does not blur by the width of a pixel. With a = (P - S)·e along the
detector and b = (P - S)·n towards it, parallel beams are read at u = a (with S = 0); a flat detector
of a fan at u = SDD a/b with the weight (SOD / L)², L = b; an arc at u = SDD atan2(a, b) with L = |P - S|
(Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, sections 3.3 and 3.4).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Detector = Literal["parallel", "flat", "arc"]


class PixelGrid(NamedTuple):
    """Where bins and pixels lie, all lengths in one unit.

    Parameters
    ----------
    kind
        0 for parallel beams, 1 for a fan on a flat detector, 2 for one on an arc.
    orbit
        Source to axis; anything for parallel beams.
    scale
        Bins per unit of what the geometry reads: u (parallel), tan γ (flat) or γ (arc).
    zero
        Bin, fractional, that the central ray meets.
    x0, y0, pixel
        Centre of the first pixel, and the size of one; Y falls with the row.
    """

    kind: int
    orbit: float
    scale: float
    zero: float
    x0: float
    y0: float
    pixel: float


def backproject(sinogram: Tensor, frames: Tensor, grid: PixelGrid, height: int, width: int) -> Tensor:
    """Return the weighted sums (N, height, width) of sinograms (N, views, bins).

    Parameters
    ----------
    sinogram
        (N, views, bins).
    frames
        (views, 4) float64: source position (0, 0 for parallel beams) and direction of the detector axis.
    grid, height, width
        The geometry.
    """
    result = sinogram.new_zeros((sinogram.shape[0], height * width))
    for view, frame in enumerate(frames.tolist()):
        left, right, at = _taps(frame, grid, height, width, sinogram)
        row = torch.nn.functional.pad(sinogram[:, view], (1, 1))
        result += row[:, at] * left + row[:, at + 1] * right
    return result.view(-1, height, width)


def project(image: Tensor, frames: Tensor, grid: PixelGrid, bins: int) -> Tensor:
    """Return the transpose: sinograms (N, views, bins) of images (N, H, W)."""
    number, height, width = image.shape
    result = image.new_zeros((number, frames.shape[0], bins + 2))
    flat = image.flatten(1)
    for view, frame in enumerate(frames.tolist()):
        left, right, at = _taps(frame, grid, height, width, result[..., 1:-1])
        result[:, view].index_add_(1, at, flat * left).index_add_(1, at + 1, flat * right)
    return result[..., 1:-1].contiguous()


def _taps(frame: list[float], grid: PixelGrid, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return both weights and the left bin (in a row that is padded by one) for every pixel."""
    sx, sy, ex, ey = frame
    x = grid.x0 - sx + grid.pixel * torch.arange(width, dtype=torch.float64, device=like.device)
    y = (grid.y0 - sy - grid.pixel * torch.arange(height, dtype=torch.float64, device=like.device))[:, None]
    a, b = x * ex + y * ey, y * ex - x * ey
    if grid.kind == 0:
        at, weight = a, torch.ones_like(a)
    elif grid.kind == 1:
        at, weight = a / b, (grid.orbit / b) ** 2
    else:
        at, weight = torch.atan2(a, b), grid.orbit**2 / (a**2 + b**2)
    at = (at * grid.scale + grid.zero).clamp(-1, like.shape[2]).flatten()
    left = at.floor().clamp(-1, like.shape[2] - 1)
    fraction, weight = at - left, weight.flatten()
    return (weight * (1 - fraction)).to(like.dtype), (weight * fraction).to(like.dtype), left.long() + 1
