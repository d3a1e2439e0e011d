"""What the kernels of both geometries share: exact positions, and rays that walk over the lines of images.

A ray meets line i (a row or a column) at base + i · step. Single precision would leave that only
some 13 bits of fraction at 1000 pixels, so positions are 64-bit integers in units of 2^-44 pixels:
whole and fraction then cost two shifts, and both directions find the same weights to the last bit.
"""

# The bodies below are Triton's language, not Python: helpers are inlined, `constexpr` are compile-time values.

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from medrecon.operators.ct.triton_runtime import groups, interleave, jit

if TYPE_CHECKING:
    import triton.language as tl
else:
    from medrecon.operators.ct.triton_runtime import language as tl

_PAD = 2  # zeros before and behind every line: both neighbours of a ray that passes it by


def lines_of(image: Tensor, together: int) -> Tensor:
    """Return (groups, numbers, together): all rows of images (N, H, W), then all columns, padded with zeros."""
    number, height, width = image.shape
    rows, columns = height * (width + 2 * _PAD), width * (height + 2 * _PAD)
    lines = image.new_zeros((groups(number, together), rows + columns, together))
    interleave(lines[:, :rows].unflatten(1, (height, -1))[:, :, _PAD:-_PAD], image)
    interleave(lines[:, rows:].unflatten(1, (width, -1))[:, :, _PAD:-_PAD], image.mT)
    return lines


@jit
def fixed(x: tl.tensor) -> tl.tensor:
    """Return a float64 as an integer number of 2^-44, at most 2^18 either way."""
    within = tl.minimum(tl.maximum(x, -262144.0), 262144.0)
    return tl.floor(within * 17592186044416.0 + 0.5).to(tl.int64)


@jit
def whole(position: tl.tensor) -> tl.tensor:
    """Return the integer below, int32."""
    return (position >> 44).to(tl.int32)


@jit
def fraction(position: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """Return what is above the integer below, rounded to the type of the images."""
    if kind == tl.float64:
        part = (position & 17592186044415).to(tl.float64) * 5.684341886080801e-14
    else:  # the upper 32 of the 44 bits
        part = (position >> 12).to(tl.uint32).to(tl.float32) * 2.3283064365386963e-10
    return part


@jit
def walk(
    lines: tl.tensor,
    base: tl.tensor,
    step: tl.tensor,
    columns: tl.tensor,
    used: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    RAYS: tl.constexpr,  # noqa: N803 (Triton's way to write compile-time values)
    LINES: tl.constexpr,  # noqa: N803
    IMAGES: tl.constexpr,  # noqa: N803
) -> tl.tensor:
    """Return the sums (RAYS, IMAGES) of the lines' linear interpolations where rays meet them.

    ``base`` and ``step`` are float64. LINES lines are read at once, to have many loads on their way.
    """
    kind: tl.constexpr = lines.dtype.element_ty
    count, size = tl.where(columns, width, height), tl.where(columns, height, width)
    # lines between the two where a ray enters and leaves; a ray along them may be inside for good
    slope = tl.where(tl.abs(step) < 1e-6, 1e-6, step)
    one, other = (-1.1 - base) / slope, (size + 0.1 - base) / slope
    first = tl.maximum(tl.minimum(tl.minimum(one, other), count.to(tl.float64)), 0.0).to(tl.int32)
    last = tl.minimum(tl.maximum(tl.maximum(one, other) + 2.0, 0.0), count.to(tl.float64)).to(tl.int32)
    start = tl.min(tl.where(used, first, 2147483647))
    stop = tl.max(tl.where(used, last, 0))

    at, pace = fixed(base)[None, :], fixed(step)[None, :]
    stride = (size + 4)[None, :]
    origin = tl.where(columns, height * (width + 4), 0)[None, :] + 2
    limit, end = size[None, :], count[None, :]
    image = tl.arange(0, IMAGES)[None, None, :]
    total = tl.zeros((LINES, RAYS, IMAGES), dtype=kind)
    for begin in range(start, stop, LINES):
        line = begin + tl.arange(0, LINES)[:, None]
        position = at + line * pace
        left = tl.minimum(tl.maximum(whole(position), -2), limit)
        left = tl.where(line < end, left, limit)
        place = (origin + tl.minimum(line, end - 1) * stride + left) * IMAGES
        here = lines + place[:, :, None] + image
        far = fraction(position, kind)[:, :, None]
        total += tl.load(here) * (1 - far)
        total += tl.load(here + IMAGES) * far
    return tl.sum(total, axis=0)


def tile(rays: int, number: int) -> dict[str, int]:
    """Return how a projection is cut into programs: views and bins of one, lines that it reads at once, its warps.

    Neighbouring views read almost the same pixels, so some share a program and what it has in the cache.
    Few rays leave a large GPU idle; then a ray gets several threads.
    """
    if rays * number >= 2**18:
        return {"VIEWS": 4, "BINS": 32, "LINES": 4, "num_warps": 4}
    return {"VIEWS": 2, "BINS": 32, "LINES": 16, "num_warps": 8}
