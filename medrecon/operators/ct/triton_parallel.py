"""Joseph's parallel-beam projector in Triton, for CUDA: the same sums as :mod:`medrecon.operators.ct.parallel_torch`.

Both directions are gathers: nothing is atomic, and results do not change from run to run. Forward, a
program follows some bins of neighbouring views over the lines of a few images. Backward, a program owns
a tile of pixels and asks every view for the bins within reach, with the weights of the forward direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.ct.triton_lines import fixed, fraction, lines_of, tile, walk, whole
from medrecon.operators.ct.triton_runtime import (
    LARGEST,
    available,
    check_size,
    groups,
    images_together,
    interleave,
    jit,
    launching,
)

if TYPE_CHECKING:
    import triton.language as tl
else:
    from medrecon.operators.ct.triton_runtime import language as tl

__all__ = ["available", "backproject", "project"]

_TILE = 16  # pixels, each way


def project(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    """Return the sinograms (N, views, count) of images (N, H, W).

    Parameters
    ----------
    image
        (N, H, W), float32 or float64, on a CUDA device.
    views
        (views, 3) float64: cos t, sin t, u0.
    pitch
        Distance of the bins in pixels.
    count
        Number of bins.
    """
    number, height, width = image.shape
    check_size(height, width)
    together = images_together(number, height * (width + 4) + width * (height + 4))
    result = image.new_empty((number, views.shape[0], count))
    with launching(image):
        lines, cut = lines_of(image, together), tile(views.shape[0] * count, groups(number, together))
        grid = (-(-count // cut["BINS"]), -(-views.shape[0] // cut["VIEWS"]), lines.shape[0])
        _project[grid](
            lines,
            views.contiguous(),
            result,
            lines.shape[1],
            *_double(pitch),
            number,
            views.shape[0],
            count,
            height,
            width,
            IMAGES=together,
            enable_fp_fusion=True,
            **cut,
        )
    return result


def backproject(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    number, total, count = sinogram.shape
    check_size(height, width)
    taps = math.ceil(2 / pitch)  # integers within (-1/pitch, 1/pitch) around any number
    if count + 2 * taps + (height + width) / pitch > LARGEST:
        raise OperatorError(
            f"{count} bins of {pitch:.3g} pixels and an image of {height} x {width} are more than the CUDA projector "
            "counts; use fewer and wider bins (detector_count, detector_pitch)"
        )
    together = images_together(number, total * (count + 2 * taps))
    result = sinogram.new_empty((number, height, width))
    with launching(sinogram):
        padded = sinogram.new_zeros((groups(number, together), total, count + 2 * taps, together))
        interleave(padded[:, :, taps:-taps], sinogram)
        starts = torch.empty((total, 3), dtype=torch.int64, device=sinogram.device)
        hats = sinogram.new_empty((total, 3))
        views = views.contiguous()
        _prepare[(-(-total // 64),)](
            views, starts, hats, *_double(pitch), total, height, width, BLOCK=64, enable_fp_fusion=True
        )
        grid = (-(-width // _TILE), -(-height // _TILE), padded.shape[0])
        _backproject[grid](
            padded,
            starts,
            hats,
            result,
            total * (count + 2 * taps),
            number,
            total,
            count,
            height,
            width,
            TAPS=taps,
            TILE=_TILE,
            IMAGES=together,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return result


def _double(x: float) -> tuple[float, float]:
    """Return two numbers of single precision, as which Triton hands floats to kernels, that add up to ``x``."""
    high = float(torch.tensor(x, dtype=torch.float32))
    return high, x - high


@jit
def _project(
    lines: tl.tensor,
    views: tl.tensor,
    result: tl.tensor,
    numbers: tl.tensor,
    pitch_high: tl.tensor,
    pitch_low: tl.tensor,
    number: tl.tensor,
    total: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    VIEWS: tl.constexpr,  # noqa: N803 (Triton's way to write compile-time values)
    BINS: tl.constexpr,  # noqa: N803
    LINES: tl.constexpr,  # noqa: N803
    IMAGES: tl.constexpr,  # noqa: N803
) -> None:
    ray = tl.arange(0, VIEWS * BINS)
    k = tl.program_id(0) * BINS + ray % BINS
    view = tl.program_id(1) * VIEWS + ray // BINS
    group = tl.program_id(2).to(tl.int64)
    used = (k < count) & (view < total)
    c = tl.load(views + view * 3, mask=used, other=1.0)
    s = tl.load(views + view * 3 + 1, mask=used, other=0.0)
    u = tl.load(views + view * 3 + 2, mask=used, other=0.0)
    u += k.to(tl.float64) * (tl.cast(pitch_high, tl.float64) + tl.cast(pitch_low, tl.float64))
    # rows: q = (u - Y_i s)/c + h_x, Y_i = h_y - i; columns: q = h_y - (u - X_j c)/s, X_j = j - h_x
    h_x, h_y = (width - 1) * 0.5, (height - 1) * 0.5
    columns = tl.abs(c) < tl.abs(s)
    major, minor = tl.where(columns, s, c), tl.where(columns, c, s)
    base = tl.where(columns, h_y - (u + h_x * c) / major, (u - h_y * s) / major + h_x)
    sums = walk(lines + group * numbers * IMAGES, base, minor / major, columns, used, height, width,
                VIEWS * BINS, LINES, IMAGES)  # fmt: skip
    sums *= (1.0 / tl.abs(major)).to(sums.dtype)[:, None]
    n = group * IMAGES + tl.arange(0, IMAGES)
    to = result + n[None, :] * total * count + (view * count + k)[:, None]
    tl.store(to, sums, mask=used[:, None] & (n < number)[None, :])


@jit
def _prepare(
    views: tl.tensor,
    starts: tl.tensor,
    hats: tl.tensor,
    pitch_high: tl.tensor,
    pitch_low: tl.tensor,
    total: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """Find where views see pixel (0, 0), less the reach of a pixel, and how that moves with j and i; in bins."""
    view = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    used = view < total
    c = tl.load(views + view * 3, mask=used, other=1.0)
    s = tl.load(views + view * 3 + 1, mask=used, other=0.0)
    u = tl.load(views + view * 3 + 2, mask=used, other=0.0)
    pitch = tl.cast(pitch_high, tl.float64) + tl.cast(pitch_low, tl.float64)
    h_x, h_y = (width - 1) * 0.5, (height - 1) * 0.5
    m = tl.maximum(tl.abs(c), tl.abs(s))
    tl.store(starts + view * 3, fixed((h_y * s - h_x * c - u - m) / pitch), mask=used)
    tl.store(starts + view * 3 + 1, fixed(c / pitch), mask=used)
    tl.store(starts + view * 3 + 2, fixed(-s / pitch), mask=used)
    # weight of bin k at the distance x in bins: max(0, 1/m - |x| pitch/m²)
    kind = hats.dtype.element_ty
    tl.store(hats + view * 3, (m / pitch - 1).to(kind), mask=used)
    tl.store(hats + view * 3 + 1, (1.0 / m).to(kind), mask=used)
    tl.store(hats + view * 3 + 2, (pitch / (m * m)).to(kind), mask=used)


@jit
def _backproject(
    sinogram: tl.tensor,
    starts: tl.tensor,
    hats: tl.tensor,
    result: tl.tensor,
    numbers: tl.tensor,
    number: tl.tensor,
    total: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    TAPS: tl.constexpr,  # noqa: N803
    TILE: tl.constexpr,  # noqa: N803
    IMAGES: tl.constexpr,  # noqa: N803
) -> None:
    kind: tl.constexpr = sinogram.dtype.element_ty
    pixel = tl.arange(0, TILE * TILE)
    j = tl.program_id(0) * TILE + pixel % TILE
    i = tl.program_id(1) * TILE + pixel // TILE
    group = tl.program_id(2).to(tl.int64)
    image = tl.arange(0, IMAGES)[None, :]
    line = sinogram + group * numbers * IMAGES
    sums = tl.zeros((TILE * TILE, IMAGES), dtype=kind)
    for view in range(total):
        # the first bin within reach is the one above this
        position = tl.load(starts + view * 3) + j * tl.load(starts + view * 3 + 1) + i * tl.load(starts + view * 3 + 2)
        before = whole(position)
        distance = fraction(position, kind) + tl.load(hats + view * 3)
        top, fall = tl.load(hats + view * 3 + 1), tl.load(hats + view * 3 + 2)
        first = tl.minimum(tl.maximum(before + 1, -TAPS), count) + TAPS
        here = line + (first * IMAGES)[:, None] + image
        for tap in tl.static_range(TAPS):
            weight = tl.maximum(top - tl.abs(distance - tap) * fall, 0.0)
            sums += tl.load(here + tap * IMAGES) * weight[:, None]
        line += (count + 2 * TAPS) * IMAGES
    n = group * IMAGES + image
    to = result + n * height * width + (i * width + j)[:, None]
    tl.store(to, sums, mask=((i < height) & (j < width))[:, None] & (n < number))
