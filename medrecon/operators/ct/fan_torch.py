"""Joseph's projector for rays that leave a source, in plain torch: the oracle of the fast one, and its fall-back.

Lengths are pixels, X to the right and Y upwards from the middle of the image. Each view has a source
and a direction for every bin; how the detector is shaped only shows in the directions. A ray with
|dY| >= |dX| meets every row once, at column q = S_x + (W-1)/2 + (Y_i - S_y) m with m = dX/dY, and adds up

    y = sqrt(1 + m²) Σ_i L_i(q_i),

L_i the linear interpolation of row i, zero outside; the others do the same with columns and dY/dX
(Joseph, IEEE Trans. Med. Imaging 1:192, 1982). The source must lie outside the image.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class FanLines(NamedTuple):
    """How the rays cross the lines of an image: ray k of view t meets line i at ``middle + (i - h) · slope``.

    Parameters
    ----------
    columns
        (views, bins), whether the lines of a ray are columns.
    middle, slope
        (views, bins) float64, h being the middle of the lines.
    scale
        (views, bins) float64, length of the ray between two lines.
    """

    columns: Tensor
    middle: Tensor
    slope: Tensor
    scale: Tensor


def fan_lines(sources: Tensor, directions: Tensor, height: int, width: int) -> FanLines:
    """Return the crossings of rays (views, bins) with an image of that size."""
    dx, dy = directions.unbind(2)
    sx, sy = (part[:, None] for part in sources.unbind(1))
    columns = dx.abs() > dy.abs()
    slope = torch.where(columns, dy, dx) / torch.where(columns, dx, dy)
    # rows: q = S_x + h_x + (Y_i - S_y) m, Y_i = h_y - i; columns: q = h_y - S_y - (X_j - S_x) dY/dX
    row_middle = sx + (width - 1) / 2 - sy * slope
    column_middle = (height - 1) / 2 - sy + sx * slope
    return FanLines(columns, torch.where(columns, column_middle, row_middle), -slope, (1 + slope**2).sqrt())


def project(image: Tensor, sources: Tensor, directions: Tensor) -> Tensor:
    """Return the sinograms (N, views, bins) of images (N, H, W).

    Parameters
    ----------
    image
        (N, H, W), float32 or float64.
    sources
        (views, 2) float64.
    directions
        (views, bins, 2) float64, of any length.
    """
    result = image.new_zeros((image.shape[0], *directions.shape[:2]))
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    height, width = image.shape[1:]
    for view, bins, columns, at, weight, scale in _runs(sources, directions, height, width, image.dtype):
        lines = padded[:, :, 1:-1].mT if columns else padded[:, 1:-1]
        at = at.expand(image.shape[0], -1, -1)
        sampled = lines.gather(2, at) * (1 - weight) + lines.gather(2, at + 1) * weight
        result[:, view, bins] = sampled.sum(1) * scale
    return result


def backproject(sinogram: Tensor, sources: Tensor, directions: Tensor, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    number = sinogram.shape[0]
    rows = sinogram.new_zeros((number, height, width + 2))
    turned = sinogram.new_zeros((number, width, height + 2))
    for view, bins, columns, at, weight, scale in _runs(sources, directions, height, width, sinogram.dtype):
        target = turned if columns else rows
        value = (sinogram[:, view, bins] * scale)[:, None]
        at = at.expand(number, -1, -1)
        target.scatter_add_(2, at, value * (1 - weight))
        target.scatter_add_(2, at + 1, value * weight)
    return rows[:, :, 1:-1] + turned[:, :, 1:-1].mT


def _runs(
    sources: Tensor, directions: Tensor, height: int, width: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor, bool, Tensor, Tensor, Tensor]]:
    """Yield view, bins, whether the lines are columns, left neighbours (lines, bins), their weights, and scales."""
    lines = fan_lines(sources, directions, height, width)
    for view in range(sources.shape[0]):
        for columns in (False, True):
            bins = (lines.columns[view] == columns).nonzero()[:, 0]
            if not len(bins):
                continue
            count, size = (width, height) if columns else (height, width)
            offset = torch.arange(count, dtype=torch.float64, device=sources.device) - (count - 1) / 2
            q = (lines.middle[view, bins] + offset[:, None] * lines.slope[view, bins]).clamp(-1, size)
            left = q.floor().clamp(-1, size - 1)
            yield view, bins, columns, left.long() + 1, (q - left).to(dtype), lines.scale[view, bins].to(dtype)
