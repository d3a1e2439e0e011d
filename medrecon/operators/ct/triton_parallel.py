"""Joseph's parallel-beam projector in Triton, for CUDA: the same sums as :mod:`medrecon.operators.ct.parallel_torch`.

Both directions are gathers, so nothing is atomic and results do not change from run to run. A program
serves a few images at once, which share the arithmetic of positions. Views that cross rows and views
that cross columns are launched apart; for the latter image and result are transposed, so that neighbouring
threads read neighbouring numbers.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_IMAGES, _BINS, _PIXELS = 4, 128, 128


class _Lines(NamedTuple):
    """Bin k meets line i at middle + k · step + (i - h) · slope; all (chosen,), float64 but for the indices."""

    chosen: Tensor
    middle: Tensor
    step: Tensor
    slope: Tensor
    scale: Tensor


def project(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    """Return the sinograms (N, views, count) of images (N, H, W)."""
    result = image.new_zeros((image.shape[0], views.shape[0], count))
    for columns in (False, True):
        oriented = (image.mT if columns else image).contiguous()
        lines = _lines(views, pitch, oriented.shape[2], columns=columns)
        if not len(lines.chosen):
            continue
        number, rows, size = oriented.shape
        grid = (len(lines.chosen), triton.cdiv(count, _BINS), triton.cdiv(number, _IMAGES))
        _project[grid](oriented, *lines, result, number, rows, size, views.shape[0], count, _IMAGES, _BINS)
    return result


def backproject(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    sinogram = sinogram.contiguous()
    number, total, count = sinogram.shape
    result = sinogram.new_zeros((number, height, width))
    for columns in (False, True):
        rows, size = (width, height) if columns else (height, width)
        lines = _lines(views, pitch, size, columns=columns)
        if not len(lines.chosen):
            continue
        part = torch.empty((number, rows, size), dtype=sinogram.dtype, device=sinogram.device)
        taps = math.floor(2 / float(lines.step.abs().min())) + 2
        grid = (rows, triton.cdiv(size, _PIXELS), triton.cdiv(number, _IMAGES))
        _backproject[grid](
            sinogram, *lines, part, number, rows, size, total, count, len(lines.chosen), taps, _IMAGES, _PIXELS
        )
        result += part.mT if columns else part
    return result


def _lines(views: Tensor, pitch: float, size: int, *, columns: bool) -> _Lines:
    """Return where the views of one kind cross lines of ``size`` pixels."""
    c, s, u0 = views.unbind(1)
    chosen = ((c.abs() < s.abs()) == columns).nonzero()[:, 0]
    c, s, u0 = c[chosen], s[chosen], u0[chosen]
    sigma = -1 / s if columns else 1 / c
    # rows: q = u/c + h + (i - h') tan t; columns: q = h - u/s + (j - h') cot t
    return _Lines(
        chosen.to(torch.int32),
        sigma * u0 + (size - 1) / 2,
        sigma * pitch,
        c / s if columns else s / c,
        sigma.abs(),
    )


@triton.jit
def _project(
    images, chosen, middle, step, slope, scale, sinogram, number, rows, size, views, count,
    IMAGES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Sum the lines of some images along some rays of a view."""
    view = tl.program_id(0)
    k = tl.program_id(1) * BINS + tl.arange(0, BINS)
    n = tl.program_id(2) * IMAGES + tl.arange(0, IMAGES)
    kind: tl.constexpr = images.dtype.element_ty
    # the offset in double precision: it is large, and added only once a ray
    start = (tl.load(middle + view) + k * tl.load(step + view)).to(kind)
    rise = tl.load(slope + view).to(kind)
    total = tl.zeros((IMAGES, BINS), dtype=kind)
    base = images + n[:, None].to(tl.int64) * rows * size
    present = (n < number)[:, None]
    for i in range(rows):
        q = start + (i - (rows - 1) * 0.5) * rise
        left = tl.floor(q)
        weight = (q - left)[None, :]
        at = left.to(tl.int32)[None, :]
        near = tl.load(base + i * size + at, mask=present & (at >= 0) & (at < size), other=0.0)
        far = tl.load(base + i * size + at + 1, mask=present & (at >= -1) & (at < size - 1), other=0.0)
        total += (1 - weight) * near + weight * far
    total = total * tl.load(scale + view).to(kind)
    out = sinogram + (n[:, None].to(tl.int64) * views + tl.load(chosen + view)) * count + k[None, :]
    tl.store(out, total, mask=present & (k < count)[None, :])


@triton.jit
def _backproject(
    sinogram, chosen, middle, step, slope, scale, images, number, rows, size, views, count, used, taps,
    IMAGES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Collect for some pixels of a line what all views read there."""
    i = tl.program_id(0)
    j = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    n = tl.program_id(2) * IMAGES + tl.arange(0, IMAGES)
    kind: tl.constexpr = sinogram.dtype.element_ty
    total = tl.zeros((IMAGES, PIXELS), dtype=kind)
    present = (n < number)[:, None]
    for view in range(used):
        m, d = tl.load(middle + view), tl.load(step + view)
        rise = (i - (rows - 1) * 0.5) * tl.load(slope + view).to(kind)
        # bins between the left and the right neighbour of the pixel; the first may be one too early
        reach = 1 / tl.abs(d)
        first = tl.floor((j - m - rise) / d - reach).to(tl.int32)
        base = sinogram + (n[:, None].to(tl.int64) * views + tl.load(chosen + view)) * count
        factor = tl.load(scale + view).to(kind)
        for tap in range(taps):
            k = first + tap
            q = (m + k * d).to(kind) + rise
            weight = tl.maximum(1 - tl.abs(q - j), 0.0) * factor
            seen = (k >= 0) & (k < count)
            value = tl.load(base + k[None, :], mask=present & seen[None, :], other=0.0)
            total += weight[None, :].to(kind) * value
    out = images + n[:, None].to(tl.int64) * rows * size + i * size + j[None, :]
    tl.store(out, total, mask=present & (j < size)[None, :])
