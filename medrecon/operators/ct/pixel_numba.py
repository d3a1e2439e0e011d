"""Pixel-driven back-projection, compiled: the same as :mod:`medrecon.operators.ct.pixel_torch`."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.operators.ct.jit import compiled, run_threads
from medrecon.operators.ct.pixel_torch import PixelGrid

Array = NDArray[Any]


def backproject(sinogram: Array, frames: Array, grid: PixelGrid, height: int, width: int) -> Array:
    """Return the weighted sums (N, height, width) of sinograms (N, views, bins)."""
    result = np.zeros((sinogram.shape[0], height, width), sinogram.dtype)
    for data, image in zip(np.pad(sinogram, ((0, 0), (0, 0), (1, 1))), result, strict=True):
        run_threads(partial(_gather, data, frames, tuple(grid), image), height)
    return result


def project(image: Array, frames: Array, grid: PixelGrid, bins: int) -> Array:
    """Return the transpose: sinograms (N, views, bins) of images (N, H, W)."""
    result = np.zeros((image.shape[0], frames.shape[0], bins + 2), image.dtype)
    for data, sinogram in zip(np.ascontiguousarray(image), result, strict=True):
        run_threads(partial(_spread, data, frames, tuple(grid), sinogram), frames.shape[0])
    return np.ascontiguousarray(result[..., 1:-1])


@compiled
def _gather(sinogram: Array, frames: Array, grid: tuple[Any, ...], image: Array, begin: int, end: int) -> None:
    width = image.shape[1]
    at = np.empty(width, np.int32)
    left = np.empty(width, image.dtype)
    right = np.empty(width, image.dtype)
    for i in range(begin, end):
        line = image[i]
        for view in range(frames.shape[0]):
            _taps(frames[view], grid, i, sinogram.shape[1] - 2, at, left, right)
            row = sinogram[view]
            for j in range(width):
                line[j] += left[j] * row[at[j]] + right[j] * row[at[j] + 1]


@compiled
def _spread(image: Array, frames: Array, grid: tuple[Any, ...], sinogram: Array, begin: int, end: int) -> None:
    width = image.shape[1]
    at = np.empty(width, np.int32)
    left = np.empty(width, image.dtype)
    right = np.empty(width, image.dtype)
    for view in range(begin, end):
        row = sinogram[view]
        for i in range(image.shape[0]):
            line = image[i]
            _taps(frames[view], grid, i, sinogram.shape[1] - 2, at, left, right)
            for j in range(width):
                row[at[j]] += left[j] * line[j]
                row[at[j] + 1] += right[j] * line[j]


@compiled
def _taps(frame: Array, grid: tuple[Any, ...], i: int, bins: int, at: Array, left: Array, right: Array) -> None:
    """Find for all pixels of row i the left bin, counted in a padded row, and the weights of both."""
    kind, orbit, scale, zero, x0, y0, pixel = grid
    number = left.dtype.type
    sx, sy, ex, ey = frame[0], frame[1], frame[2], frame[3]
    y = y0 - sy - pixel * i
    for j in range(at.size):
        x = x0 - sx + pixel * j
        a, b = x * ex + y * ey, y * ex - x * ey
        if kind == 0:
            where, weight = a, 1.0
        elif kind == 1:
            where, weight = a / b, (orbit / b) ** 2
        else:
            where, weight = np.arctan2(a, b), orbit * orbit / (a * a + b * b)
        q = min(max(where * scale + zero, -1.0), float(bins)) + 1.0
        whole = min(int(q), bins)
        at[j] = whole
        right[j] = number(weight * (q - whole))
        left[j] = number(weight) - right[j]
