r"""The shear-sum projector: Joseph's sums for parallel beams without a gather in the inner loop.

A view with \|cos t\| >= \|sin t\| crosses *lines* = rows, the others columns. Parametrised by p = σ u, the
crossing with the middle line, its rays meet line i at q = p + h + (i - h') τ, with the slope τ = tan t
(cot t for columns). On a grid of rays with spacing 1 in p the fractional part of q is the same along
the whole line, so one line adds two shifted copies of itself, contiguous in memory:

    g[m] += (1 - f_i) x_i[m + n_i] + f_i x_i[m + n_i + 1].

Both terms are sums over the same shifted lines, the second one place further, so each number that is
loaded is used twice. That is exactly Joseph's sum for the rays of the grid. The grid is computed twice,
half a pixel apart, and each bin reads it by cubic convolution (Keys, IEEE Trans. Acoust. 29:1153, 1981)
with a = -5/8, a little sharper than Keys' -1/2: then the error against the line integrals of ellipses is
not above that of Joseph's sums themselves. The adjoint is the exact transpose: bins are spread over the
two grids of their own view, and every line gathers, again in contiguous pieces, from all views.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.operators.ct.jit import compiled, run_threads
from medrecon.operators.ct.simd import LANES, add, add_scaled, load, store, zeros

Array = NDArray[Any]

_GRIDS = 2
_SHARP = -0.625
_BLOCK = 2 * LANES  # grid points or pixels whose sums are in registers
_LINES = 32  # lines, and views, that are worked on before their results leave the registers and the cache
_PAD = _LINES + _BLOCK + 2  # how far beyond a line the first and last block of a group of lines may reach


class _Shear:
    """Where the rays of some views cross the lines of an image.

    Parameters
    ----------
    views
        (views, 3): cos, sin, u0; all of them cross rows, or all of them columns.
    pitch
        Distance of the bins in pixels.
    lines, size
        Number of lines and pixels of each.
    columns
        Whether the lines are columns.
    """

    def __init__(self, views: Array, pitch: float, lines: int, size: int, *, columns: bool) -> None:
        c, s, u0 = views.T
        self.lines, self.size = lines, size
        self.slope = c / s if columns else s / c
        sigma = -1 / s if columns else 1 / c
        middle = (size - 1) / 2
        # grid point m lies at p = m - half: far enough out for every ray that meets the image, and its taps
        half = int(np.ceil((size + lines) / 2)) + 3
        self.points = 2 * half + 1
        self.stride = self.points + _BLOCK + 2
        self.start = middle - half - (lines - 1) / 2 * self.slope
        self.first = _GRIDS * (sigma * u0 + half)
        self.step = _GRIDS * sigma * pitch
        self.scale = np.abs(sigma)


def project(image: Array, views: Array, pitch: float, count: int) -> Array:
    """Return the sinograms (N, views, count) of images (N, H, W); see :mod:`medrecon.operators.ct.parallel_torch`."""
    result = np.zeros((image.shape[0], views.shape[0], count), image.dtype)
    for columns, chosen in _by_direction(views):
        oriented = image.transpose(0, 2, 1) if columns else image
        shear = _Shear(views[chosen], pitch, *oriented.shape[1:], columns=columns)
        padded = np.zeros((shear.lines, shear.size + 2 * _PAD), image.dtype)
        grid = np.empty((len(chosen), _GRIDS, shear.stride), image.dtype)
        bins = np.empty((len(chosen), count), image.dtype)
        for index, lines in enumerate(oriented):
            padded[:, _PAD : _PAD + shear.size] = lines
            run_threads(partial(_project_views, shear, padded, grid, bins), len(chosen))
            result[index, chosen] = bins
    return result


def backproject(sinogram: Array, views: Array, pitch: float, height: int, width: int) -> Array:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    result = np.zeros((sinogram.shape[0], height, width), sinogram.dtype)
    for columns, chosen in _by_direction(views):
        shear = _Shear(views[chosen], pitch, *((width, height) if columns else (height, width)), columns=columns)
        grid = np.empty((len(chosen), _GRIDS, shear.stride), sinogram.dtype)
        # one pixel before each line and some behind it, where sums of the neighbours' shares end up
        padded = np.empty((shear.lines, -(-(shear.size + 1) // _BLOCK) * _BLOCK + LANES), sinogram.dtype)
        oriented = result.transpose(0, 2, 1) if columns else result
        for index, data in enumerate(sinogram):
            run_threads(partial(_spread_views, shear, np.ascontiguousarray(data[chosen]), grid), len(chosen))
            run_threads(partial(_gather_image, shear, grid, padded), shear.lines)
            oriented[index] += padded[:, 1 : shear.size + 1]
    return result


def _project_views(shear: _Shear, lines: Array, grid: Array, bins: Array, begin: int, end: int) -> None:
    grid[begin:end] = 0
    size = (shear.lines, shear.size)
    _sum_lines(lines.reshape(-1), grid.reshape(-1), *size, shear.slope, shear.start, begin, end)
    _read_grid(grid, bins, shear.points, shear.first, shear.step, shear.scale, begin, end)


def _spread_views(shear: _Shear, bins: Array, grid: Array, begin: int, end: int) -> None:
    grid[begin:end] = 0
    _write_grid(bins, grid, shear.points, shear.first, shear.step, shear.scale, begin, end)


def _gather_image(shear: _Shear, grid: Array, lines: Array, begin: int, end: int) -> None:
    lines[begin:end] = 0
    strides = (lines.shape[1], shear.stride)
    _gather_lines(grid.reshape(-1), lines.reshape(-1), *strides, shear.slope, shear.start, begin, end)


def _by_direction(views: Array) -> list[tuple[bool, Array]]:
    """Return (columns?, indices) of the views that cross rows and of those that cross columns, without empty ones."""
    rows = np.abs(views[:, 0]) >= np.abs(views[:, 1])
    return [(columns, chosen) for columns in (False, True) if len(chosen := np.flatnonzero(rows != columns))]


@compiled
def _sum_lines(
    lines: Array, grid: Array, count: int, size: int, slope: Array, start: Array, begin: int, end: int
) -> None:
    """Add the shifted lines to the grids of views ``begin`` to ``end``."""
    stride = size + 2 * _PAD
    points = grid.size // (slope.size * _GRIDS)
    at = np.empty(_LINES, np.int64)
    left = np.empty(_LINES, lines.dtype)
    right = np.empty(_LINES, lines.dtype)
    for first in range(0, count, _LINES):
        used = min(_LINES, count - first)
        for view in range(begin, end):
            for half in range(_GRIDS):
                smallest, largest = 1 << 40, -(1 << 40)
                for row in range(used):
                    q = start[view] + (first + row) * slope[view] + half / _GRIDS
                    whole = int(np.floor(q))
                    smallest, largest = min(smallest, whole), max(largest, whole)
                    right[row] = q - whole
                    left[row] = 1 - right[row]
                    at[row] = (first + row) * stride + _PAD + whole
                own = (view * _GRIDS + half) * points
                m = -largest
                while m < size - smallest:
                    left_a, left_b, right_a, right_b = zeros(grid), zeros(grid), zeros(grid), zeros(grid)
                    for row in range(used):
                        a, b = load(lines, at[row] + m), load(lines, at[row] + m + LANES)
                        left_a, left_b = add_scaled(left_a, left[row], a), add_scaled(left_b, left[row], b)
                        right_a, right_b = add_scaled(right_a, right[row], a), add_scaled(right_b, right[row], b)
                    _increase(grid, own + m, left_a, left_b)
                    _increase(
                        grid, own + m - 1, right_a, right_b
                    )  # g[m] has f x[m + n + 1]: the same sums, one further
                    m += _BLOCK


@compiled
def _gather_lines(
    grid: Array, lines: Array, stride: int, points: int, slope: Array, start: Array, begin: int, end: int
) -> None:
    """Add to lines ``begin`` to ``end`` what the grids of all views hold for them."""
    number = slope.size
    at = np.empty(_LINES * _GRIDS, np.int64)
    left = np.empty(_LINES * _GRIDS, lines.dtype)
    right = np.empty(_LINES * _GRIDS, lines.dtype)
    for first in range(0, number, _LINES):
        used = min(_LINES, number - first) * _GRIDS
        for line in range(begin, end):
            for entry in range(used):
                view = first + entry // _GRIDS
                q = start[view] + line * slope[view] + (entry % _GRIDS) / _GRIDS
                whole = int(np.floor(q))
                right[entry] = q - whole
                left[entry] = 1 - right[entry]
                at[entry] = (first * _GRIDS + entry) * points - whole - 1
            own = line * stride
            for j in range(0, stride - LANES, _BLOCK):
                left_a, left_b, right_a, right_b = zeros(grid), zeros(grid), zeros(grid), zeros(grid)
                for entry in range(used):
                    a, b = load(grid, at[entry] + j), load(grid, at[entry] + j + LANES)
                    left_a, left_b = add_scaled(left_a, left[entry], a), add_scaled(left_b, left[entry], b)
                    right_a, right_b = add_scaled(right_a, right[entry], a), add_scaled(right_b, right[entry], b)
                _increase(lines, own + j, left_a, left_b)
                _increase(lines, own + j + 1, right_a, right_b)


@compiled
def _increase(array: Array, at: int, a: Any, b: Any) -> None:  # noqa: ANN401 (vectors)
    """Add two vectors to consecutive places of an array."""
    store(array, at, add(load(array, at), a))
    store(array, at + LANES, add(load(array, at + LANES), b))


@compiled
def _read_grid(
    grid: Array, bins: Array, points: int, first: Array, step: Array, scale: Array, begin: int, end: int
) -> None:
    """Interpolate the bins of views ``begin`` to ``end`` from the two interleaved grids."""
    for view in range(begin, end):
        for k in range(bins.shape[1]):
            g = first[view] + k * step[view]
            whole = int(np.floor(g))
            total = bins.dtype.type(0)
            if whole >= 1 and whole + 2 < _GRIDS * points:
                t = g - whole
                for tap in range(4):
                    at = whole - 1 + tap
                    total += bins.dtype.type(_cubic(t, tap) * scale[view]) * grid[view, at % _GRIDS, at // _GRIDS]
            bins[view, k] = total


@compiled
def _write_grid(
    bins: Array, grid: Array, points: int, first: Array, step: Array, scale: Array, begin: int, end: int
) -> None:
    """Spread the bins over the grids of their view: the transpose of :func:`_read_grid`."""
    for view in range(begin, end):
        for k in range(bins.shape[1]):
            g = first[view] + k * step[view]
            whole = int(np.floor(g))
            if whole >= 1 and whole + 2 < _GRIDS * points:
                t = g - whole
                for tap in range(4):
                    at = whole - 1 + tap
                    weight = bins.dtype.type(_cubic(t, tap) * scale[view])
                    grid[view, at % _GRIDS, at // _GRIDS] += weight * bins[view, k]


@compiled
def _cubic(t: float, tap: int) -> float:
    """Return the weight of tap 0 … 3 for the fraction t."""
    s = 1 - t
    if tap == 0:
        return _SHARP * s * s * t
    if tap == 1:
        return ((_SHARP + 2) * t - (_SHARP + 3)) * t * t + 1
    if tap == 2:
        return ((_SHARP + 2) * s - (_SHARP + 3)) * s * s + 1
    return _SHARP * t * t * s
