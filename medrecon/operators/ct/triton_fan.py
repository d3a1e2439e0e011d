"""Joseph's projector for divergent rays in Triton, for CUDA: the same sums as :mod:`medrecon.operators.ct.fan_torch`.

Both directions are gathers: nothing is atomic, and results do not change from run to run. Forward, a
program follows some bins of neighbouring views over the lines of a few images. Backward, a program owns
a tile of pixels and asks every view for the bins within reach. Which these are is looked up in a
table over the tangent of the fan angle, so the detector may have any shape as long as the bins follow each
other by angle, over less than half a turn; then each bin gets the weight that the forward direction gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medrecon.operators.ct.triton_lines import fixed, fraction, lines_of, tile, walk, whole
from medrecon.operators.ct.triton_runtime import check_size, groups, images_together, interleave, jit, launching

if TYPE_CHECKING:
    import triton.language as tl
else:
    from medrecon.operators.ct.triton_runtime import language as tl

_TILE = 16  # pixels, each way


def project(image: Tensor, sources: Tensor, directions: Tensor) -> Tensor:
    """Return the sinograms (N, views, bins) of images (N, H, W).

    Parameters
    ----------
    image
        (N, H, W), float32 or float64, on a CUDA device.
    sources
        (views, 2) float64.
    directions
        (views, bins, 2) float64, of any length.
    """
    number, height, width = image.shape
    check_size(height, width)
    total, count = directions.shape[:2]
    together = images_together(number, height * (width + 4) + width * (height + 4))
    result = image.new_empty((number, total, count))
    with launching(image):
        lines, cut = lines_of(image, together), tile(total * count, groups(number, together))
        grid = (-(-count // cut["BINS"]), -(-total // cut["VIEWS"]), lines.shape[0])
        _project[grid](
            lines,
            sources.contiguous(),
            directions.contiguous(),
            result,
            lines.shape[1],
            number,
            total,
            count,
            height,
            width,
            IMAGES=together,
            enable_fp_fusion=True,
            **cut,
        )
    return result


def backproject(sinogram: Tensor, sources: Tensor, directions: Tensor, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    number, total, count = sinogram.shape
    check_size(height, width)
    together = images_together(number, total * count)
    cells = 2 * count
    result = sinogram.new_empty((number, height, width))
    with launching(sinogram):
        packed = sinogram.new_zeros((groups(number, together), total, count, together))
        interleave(packed, sinogram)
        device = sinogram.device
        rays = torch.empty((total, count, 2), dtype=torch.int64, device=device)
        scales = sinogram.new_empty((total, count))
        frames = torch.empty((total, 10), dtype=torch.float32, device=device)
        table = torch.empty((total, cells), dtype=torch.int32, device=device)
        sources, directions = sources.contiguous(), directions.contiguous()
        block = 1 << (count - 1).bit_length()
        _prepare[(total,)](
            sources, directions, rays, scales, frames, table, count, cells, height, width,
            BLOCK=block, STEPS=count.bit_length(), enable_fp_fusion=True,
        )  # fmt: skip
        packed *= scales[..., None]
        grid = (-(-width // _TILE), -(-height // _TILE), packed.shape[0])
        _backproject[grid](
            packed,
            rays,
            frames,
            table,
            result,
            total * count,
            number,
            total,
            count,
            cells,
            height,
            width,
            TILE=_TILE,
            IMAGES=together,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return result


@jit
def _crossings(
    sx: tl.tensor,
    sy: tl.tensor,
    dx: tl.tensor,
    dy: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
) -> tl.tensor:
    """Return whether the lines of rays are columns, where they meet line 0, how that moves by line, and the scale."""
    h_x, h_y = (width - 1) * 0.5, (height - 1) * 0.5
    columns = tl.abs(dx) > tl.abs(dy)
    slope = tl.where(columns, dy, dx) / tl.where(columns, dx, dy)
    # rows: q = S_x + h_x + (Y_i - S_y) m, Y_i = h_y - i; columns: q = h_y - S_y - (X_j - S_x) m, X_j = j - h_x
    base = tl.where(columns, h_y - sy + (h_x + sx) * slope, sx + h_x + (h_y - sy) * slope)
    return columns, base, -slope, tl.sqrt(1.0 + slope * slope)


@jit
def _project(
    lines: tl.tensor,
    sources: tl.tensor,
    directions: tl.tensor,
    result: tl.tensor,
    numbers: tl.tensor,
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
    at = directions + (view * count + k).to(tl.int64) * 2
    dx, dy = tl.load(at, mask=used, other=0.0), tl.load(at + 1, mask=used, other=1.0)
    sx = tl.load(sources + view * 2, mask=used, other=0.0)
    sy = tl.load(sources + view * 2 + 1, mask=used, other=0.0)
    columns, base, step, scale = _crossings(sx, sy, dx, dy, height, width)
    sums = walk(lines + group * numbers * IMAGES, base, step, columns, used, height, width,
                VIEWS * BINS, LINES, IMAGES)  # fmt: skip
    sums *= scale.to(sums.dtype)[:, None]
    n = group * IMAGES + tl.arange(0, IMAGES)
    to = result + n[None, :] * total * count + (view * count + k)[:, None]
    tl.store(to, sums, mask=used[:, None] & (n < number)[None, :])


@jit
def _prepare(
    sources: tl.tensor,
    directions: tl.tensor,
    rays: tl.tensor,
    scales: tl.tensor,
    frames: tl.tensor,
    table: tl.tensor,
    count: tl.tensor,
    cells: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
    STEPS: tl.constexpr,  # noqa: N803
) -> None:
    """Prepare a view: its rays in fixed point, and the first bin at or above every cell of a table of tangents."""
    view = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    used = k < count
    sx, sy = tl.load(sources + view * 2), tl.load(sources + view * 2 + 1)
    row = directions + view * count * 2
    dx = tl.load(row + k * 2, mask=used, other=0.0)
    dy = tl.load(row + k * 2 + 1, mask=used, other=1.0)
    columns, base, step, scale = _crossings(sx, sy, dx, dy, height, width)
    # the last bit of a step tells columns from rows
    to = rays + (view * count + k) * 2
    tl.store(to, fixed(base), mask=used)
    tl.store(to + 1, (fixed(step) & -2) + columns.to(tl.int64), mask=used)
    tl.store(scales + view * count + k, scale.to(scales.dtype.element_ty), mask=used)

    # forwards halves the angle between first and last bin; sideways is where the bins go
    ax, ay = tl.load(row), tl.load(row + 1)
    bx, by = tl.load(row + 2 * (count - 1)), tl.load(row + 2 * (count - 1) + 1)
    a, b = tl.sqrt(ax * ax + ay * ay), tl.sqrt(bx * bx + by * by)
    ax, ay, bx, by = ax / a, ay / a, bx / b, by / b
    turn = tl.where(ax * by - ay * bx < 0.0, -1.0, 1.0)
    fx, fy = ax + bx, ay + by
    length = tl.sqrt(fx * fx + fy * fy)
    fx, fy = fx / length, fy / length
    ex, ey = -fy * turn, fx * turn
    lowest = (ax * ex + ay * ey) / (ax * fx + ay * fy)
    highest = (bx * ex + by * ey) / (bx * fx + by * fy)
    cell = tl.maximum((highest - lowest) / (cells - 1), 1e-9)
    lowest -= 0.01 * cell  # for what single precision loses later
    # the smallest angle from bin to bin, by its sine
    more = k < count - 1
    nx = tl.load(row + k * 2 + 2, mask=more, other=1.0)
    ny = tl.load(row + k * 2 + 3, mask=more, other=1.0)
    sine = tl.abs(dx * ny - dy * nx) / tl.sqrt((dx * dx + dy * dy) * (nx * nx + ny * ny))
    narrowest = tl.maximum(tl.min(tl.where(more, sine, 1.0)), 1e-9)
    frame = frames + view * 10
    tl.store(frame, sx.to(tl.float32))
    tl.store(frame + 1, sy.to(tl.float32))
    tl.store(frame + 2, fx.to(tl.float32))
    tl.store(frame + 3, fy.to(tl.float32))
    tl.store(frame + 4, ex.to(tl.float32))
    tl.store(frame + 5, ey.to(tl.float32))
    tl.store(frame + 6, lowest.to(tl.float32))
    tl.store(frame + 7, (1.0 / cell).to(tl.float32))
    tl.store(frame + 8, (1.01 / narrowest).to(tl.float32))
    tl.store(frame + 9, (1.1 * cell).to(tl.float32))

    for begin in range(0, cells, BLOCK):
        index = begin + k
        edge = lowest + index.to(tl.float64) * cell
        low, high = tl.zeros((BLOCK,), dtype=tl.int32), tl.zeros((BLOCK,), dtype=tl.int32) + count
        for _ in range(STEPS):
            middle = tl.minimum((low + high) // 2, count - 1)
            mx, my = tl.load(row + middle * 2), tl.load(row + middle * 2 + 1)
            below = ((mx * ex + my * ey) < edge * (mx * fx + my * fy)) & (low < high)
            high = tl.where(below, high, tl.minimum(middle, high))
            low = tl.where(below, middle + 1, low)
        tl.store(table + view * cells + index, low, mask=index < cells)


@jit
def _backproject(
    sinogram: tl.tensor,
    rays: tl.tensor,
    frames: tl.tensor,
    table: tl.tensor,
    result: tl.tensor,
    numbers: tl.tensor,
    number: tl.tensor,
    total: tl.tensor,
    count: tl.tensor,
    cells: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    TILE: tl.constexpr,  # noqa: N803
    IMAGES: tl.constexpr,  # noqa: N803
) -> None:
    kind: tl.constexpr = sinogram.dtype.element_ty
    pixel = tl.arange(0, TILE * TILE)
    left, top = tl.program_id(0) * TILE, tl.program_id(1) * TILE
    j, i = left + pixel % TILE, top + pixel // TILE
    h_x, h_y = (width - 1) * 0.5, (height - 1) * 0.5
    x, y = j.to(tl.float32) - h_x, h_y - i.to(tl.float32)
    middle_x, middle_y = (left + TILE // 2).to(tl.float32) - h_x, h_y - (top + TILE // 2).to(tl.float32)
    group = tl.program_id(2).to(tl.int64)
    image = tl.arange(0, IMAGES)[None, :]
    values = sinogram + group * numbers * IMAGES
    sums = tl.zeros((TILE * TILE, IMAGES), dtype=kind)
    for view in range(total):
        frame = frames + view * 10
        sx, sy = tl.load(frame), tl.load(frame + 1)
        fx, fy, ex, ey = tl.load(frame + 2), tl.load(frame + 3), tl.load(frame + 4), tl.load(frame + 5)
        dx, dy = x - sx, y - sy
        along, across = dx * fx + dy * fy, dx * ex + dy * ey
        # rays within reach pass at less than one pixel: start from the tangent to that circle, as seen by the source
        reach = tl.sqrt(tl.maximum(dx * dx + dy * dy - 1.0, 0.0))
        ahead = along * reach + across
        tangent = tl.where(ahead > 0.0, (across * reach - along) / tl.where(ahead > 0.0, ahead, 1.0), -1e30)
        cell = tl.minimum(tl.maximum((tangent - tl.load(frame + 6)) * tl.load(frame + 7), 0.0), (cells - 1) * 1.0)
        first = tl.load(table + cell.to(tl.int32))
        # how many there can be, for the pixel of the tile that is nearest to the source; asin z <= z + 0.571 z³
        to_x, to_y = middle_x - sx, middle_y - sy
        near = tl.maximum(tl.sqrt(to_x * to_x + to_y * to_y) - 0.75 * TILE, 1.0)
        angle = (2.0 + 1.142 / (near * near)) / near + tl.load(frame + 9)
        taps = tl.minimum(angle * tl.load(frame + 8) + 1.0, count * 1.0).to(tl.int32)
        taps = tl.where(near <= 1.0, count, taps)
        for tap in range(taps):
            k = tl.minimum(first + tap, count - 1)
            base, step = tl.load(rays + k * 2), tl.load(rays + k * 2 + 1)
            columns = (step & 1) != 0
            position = base + tl.where(columns, j, i) * step
            offset = whole(position) - tl.where(columns, i, j)
            far = fraction(position, kind)
            weight = tl.where(offset == 0, 1 - far, tl.where(offset == -1, far, 0.0))
            weight = tl.where(first + tap < count, weight, 0.0)
            sums += tl.load(values + (k * IMAGES)[:, None] + image) * weight[:, None]
        values += count * IMAGES
        rays += count * 2
        table += cells
    n = group * IMAGES + image
    to = result + n * height * width + (i * width + j)[:, None]
    tl.store(to, sums, mask=((i < height) & (j < width))[:, None] & (n < number))
