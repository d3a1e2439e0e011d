"""Joseph's projector for divergent rays in Triton, for CUDA: the sums of :mod:`medrecon.operators.ct.fan_torch`.

Both directions are gathers with the same weights; see :mod:`medrecon.operators.ct.triton_parallel`. In the
adjoint a pixel looks for the rays between its two neighbours: along the detector the slope of the rays
against the middle one only rises, so the first is found by bisection, and the rest follow it.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from medrecon.operators.ct.fan_torch import fan_lines

_IMAGES, _BINS, _PIXELS = 4, 128, 128


class _Rays(NamedTuple):
    """Rays of one kind: ``used`` (views, bins) int8, the rest as in ``fan_torch.FanLines``."""

    used: Tensor
    middle: Tensor
    slope: Tensor
    scale: Tensor


def project(image: Tensor, sources: Tensor, directions: Tensor) -> Tensor:
    """Return the sinograms (N, views, bins) of images (N, H, W)."""
    number, views, count = image.shape[0], *directions.shape[:2]
    result = image.new_zeros((number, views, count))
    height, width = image.shape[1:]
    for columns, rays in _rays(sources, directions, height, width, image.dtype):
        oriented = (image.mT if columns else image).contiguous()
        grid = (views, triton.cdiv(count, _BINS), triton.cdiv(number, _IMAGES))
        _project[grid](oriented, *rays, result, number, *oriented.shape[1:], views, count, _IMAGES, _BINS)
    return result


def backproject(sinogram: Tensor, sources: Tensor, directions: Tensor, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    sinogram = sinogram.contiguous()
    number, views, count = sinogram.shape
    result = sinogram.new_zeros((number, height, width))
    frames, ratio = _frames(sources, directions)
    halvings = max(1, math.ceil(math.log2(count + 1)))
    for columns, rays in _rays(sources, directions, height, width, sinogram.dtype):
        rows, size = (width, height) if columns else (height, width)
        part = torch.empty((number, rows, size), dtype=sinogram.dtype, device=sinogram.device)
        grid = (rows, triton.cdiv(size, _PIXELS), triton.cdiv(number, _IMAGES))
        _backproject[grid](
            sinogram, *rays, frames, ratio, part, number, rows, size, views, count, halvings, _taps(rays, rows),
            columns, _IMAGES, _PIXELS,
        )  # fmt: skip
        result += part.mT if columns else part
    return result


def _rays(sources: Tensor, directions: Tensor, height: int, width: int, dtype: torch.dtype) -> list[tuple[bool, _Rays]]:
    """Return (columns?, rays) for both kinds of lines, without those that have no ray."""
    lines = fan_lines(sources, directions, height, width)
    parts = [part.to(dtype).contiguous() for part in lines[1:]]
    kinds = ((columns, (lines.columns == columns).to(torch.int8)) for columns in (False, True))
    return [(columns, _Rays(used, *parts)) for columns, used in kinds if bool(used.any())]


def _frames(sources: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return (source, detector axis) of every view (views, 4), and tan γ of every bin, rising."""
    ahead = torch.nn.functional.normalize(torch.nn.functional.normalize(directions, dim=2).sum(1), dim=1)
    axis = torch.stack((ahead[:, 1], -ahead[:, 0]), 1)

    def ratio(axis: Tensor) -> Tensor:
        return (directions * axis[:, None]).sum(2) / (directions * ahead[:, None]).sum(2)

    falling = ratio(axis)[:, -1] < ratio(axis)[:, 0]
    axis = torch.where(falling[:, None], -axis, axis)
    return torch.cat((sources, axis), 1).contiguous(), ratio(axis).contiguous()


def _taps(rays: _Rays, rows: int) -> int:
    """Return how many neighbouring rays can cross a line between the two neighbours of a pixel."""
    if rays.middle.shape[1] < 2:
        return 2
    both = (rays.used[:, 1:] * rays.used[:, :-1]).bool()
    spacings = [
        (rays.middle + side * (rows - 1) / 2 * rays.slope).diff(dim=1).abs()[both] for side in (-1, 1)
    ]  # linear in between
    least = min((float(spacing.min()) for spacing in spacings if len(spacing)), default=1.0)
    return min(math.floor(2 / max(least, 1e-3)) + 3, rays.middle.shape[1] + 1)


@triton.jit
def _project(
    images, used, middle, slope, scale, sinogram, number, rows, size, views, count,
    IMAGES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Sum the lines of some images along some rays of a view."""
    view = tl.program_id(0)
    k = tl.program_id(1) * BINS + tl.arange(0, BINS)
    n = tl.program_id(2) * IMAGES + tl.arange(0, IMAGES)
    kind: tl.constexpr = images.dtype.element_ty
    ray = view * count + k
    own = tl.load(used + ray, mask=k < count, other=0) != 0
    start = tl.load(middle + ray, mask=own, other=0.0)
    rise = tl.load(slope + ray, mask=own, other=0.0)
    total = tl.zeros((IMAGES, BINS), dtype=kind)
    base = images + n[:, None].to(tl.int64) * rows * size
    present = (n < number)[:, None] & own[None, :]
    for i in range(rows):
        q = start + (i - (rows - 1) * 0.5) * rise
        left = tl.floor(q)
        weight = (q - left)[None, :]
        at = left.to(tl.int32)[None, :]
        near = tl.load(base + i * size + at, mask=present & (at >= 0) & (at < size), other=0.0)
        far = tl.load(base + i * size + at + 1, mask=present & (at >= -1) & (at < size - 1), other=0.0)
        total += (1 - weight) * near + weight * far
    total = total * tl.load(scale + ray, mask=own, other=0.0)[None, :]
    tl.store(sinogram + (n[:, None].to(tl.int64) * views + view) * count + k[None, :], total, mask=present)


@triton.jit
def _backproject(
    sinogram, used, middle, slope, scale, frames, ratio, images, number, rows, size, views, count, halvings, taps,
    COLUMNS: tl.constexpr, IMAGES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Collect for some pixels of a line what all rays leave there."""
    i = tl.program_id(0)
    j = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    n = tl.program_id(2) * IMAGES + tl.arange(0, IMAGES)
    kind: tl.constexpr = sinogram.dtype.element_ty
    total = tl.zeros((IMAGES, PIXELS), dtype=kind)
    present = (n < number)[:, None]
    offset = i - (rows - 1) * 0.5
    for view in range(views):
        sx, sy = tl.load(frames + 4 * view), tl.load(frames + 4 * view + 1)
        ex, ey = tl.load(frames + 4 * view + 2), tl.load(frames + 4 * view + 3)
        # tan γ of both neighbours of the pixel; the rays between them may touch it
        before = tl.minimum(j, size - 1) - 1 - (size - 1) * 0.5
        if COLUMNS:  # lines are columns: i runs along X, j down the rows
            x0, y0, x1, y1 = offset - sx + 0 * before, -before - sy, offset - sx + 0 * before, -before - 2 - sy
        else:
            x0, y0, x1, y1 = before - sx, -offset - sy + 0 * before, before + 2 - sx, -offset - sy + 0 * before
        left = (x0 * ex + y0 * ey) / (y0 * ex - x0 * ey)
        right = (x1 * ex + y1 * ey) / (y1 * ex - x1 * ey)
        least = tl.minimum(left, right)
        low = tl.zeros((PIXELS,), dtype=tl.int32)
        high = tl.zeros((PIXELS,), dtype=tl.int32) + count
        for _ in range(halvings):
            half = (low + high) // 2
            open_ = low < high
            beyond = tl.load(ratio + view * count + half, mask=open_, other=0.0) > least
            high = tl.where(open_ & beyond, half, high)
            low = tl.where(open_ & (beyond == 0), half + 1, low)
        base = sinogram + (n[:, None].to(tl.int64) * views + view) * count
        for tap in range(taps):
            k = low - 1 + tap  # one earlier, for rounding
            ray = view * count + k
            inside = (k >= 0) & (k < count)
            own = tl.load(used + ray, mask=inside, other=0) != 0
            q = tl.load(middle + ray, mask=own, other=0.0) + offset * tl.load(slope + ray, mask=own, other=0.0)
            weight = tl.maximum(1 - tl.abs(q - j), 0.0) * tl.load(scale + ray, mask=own, other=0.0)
            value = tl.load(base + k[None, :], mask=present & own[None, :], other=0.0)
            total += tl.where(own, weight, 0.0)[None, :].to(kind) * value
    out = images + n[:, None].to(tl.int64) * rows * size + i * size + j[None, :]
    tl.store(out, total, mask=present & (j < size)[None, :])
