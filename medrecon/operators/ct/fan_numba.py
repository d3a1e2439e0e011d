"""Joseph's projector for divergent rays, compiled: the same sums as :mod:`medrecon.operators.ct.fan_torch`.

Forward, every ray walks over the lines that it meets inside the image. The adjoint goes by lines: each
line of the image owns a buffer into which all rays that cross it are scattered, so nothing is shared
between threads, nothing is atomic, and the weights are those of the forward direction.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.operators.ct.fan_torch import fan_lines
from medrecon.operators.ct.jit import compiled, run_threads

Array = NDArray[Any]

_PAD = 2  # zeros before and behind every line: the neighbours of a ray that just touches it


class _Rays(NamedTuple):
    """Rays with the same kind of lines, in runs of neighbouring bins of a view.

    ``run`` (runs, 3) holds view, first bin, last bin + 1; the rest is (views, bins) in the precision of the image.
    """

    run: Array
    middle: Array
    slope: Array
    scale: Array


def project(image: Array, sources: Array, directions: Array) -> Array:
    """Return the sinograms (N, views, bins) of images (N, H, W)."""
    result = np.zeros((image.shape[0], *directions.shape[:2]), image.dtype)
    for columns, rays in _rays(sources, directions, image.shape[1:], image.dtype):
        oriented = image.transpose(0, 2, 1) if columns else image
        count, size = oriented.shape[1:]
        padded = np.zeros((count, size + 2 * _PAD), image.dtype)
        for index, lines in enumerate(oriented):
            padded[:, _PAD:-_PAD] = lines
            run_threads(partial(_walk, padded, size, *rays, result[index]), len(rays.run))
    return result


def backproject(sinogram: Array, sources: Array, directions: Array, height: int, width: int) -> Array:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    result = np.zeros((sinogram.shape[0], height, width), sinogram.dtype)
    for columns, rays in _rays(sources, directions, (height, width), sinogram.dtype):
        oriented = result.transpose(0, 2, 1) if columns else result
        count, size = oriented.shape[1:]
        buffers = np.empty((count, size + 2 * _PAD), sinogram.dtype)
        for index, data in enumerate(sinogram):
            buffers[:] = 0
            values = data * rays.scale
            run_threads(partial(_scatter, values, size, rays.run, rays.middle, rays.slope, buffers), count)
            oriented[index] += buffers[:, _PAD:-_PAD]
    return result


def _rays(sources: Array, directions: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[tuple[bool, _Rays]]:
    """Return (columns?, rays) for both kinds of lines, without those that have no ray."""
    lines = fan_lines(torch.from_numpy(sources), torch.from_numpy(directions), shape[0], shape[1])
    middle, slope, scale = (part.numpy().astype(dtype) for part in lines[1:])
    is_column = lines.columns.numpy()
    found = []
    for columns in (False, True):
        edges = np.diff((is_column == columns).astype(np.int8), axis=1, prepend=0, append=0)
        (view, first), (_, last) = np.nonzero(edges == 1), np.nonzero(edges == -1)
        if len(view):
            found.append((columns, _Rays(np.stack((view, first, last), 1), middle, slope, scale)))
    return found


@compiled
def _walk(
    lines: Array,
    size: int,
    run: Array,
    middle: Array,
    slope: Array,
    scale: Array,
    result: Array,
    begin: int,
    end: int,
) -> None:
    """Sum over all lines for the rays of runs ``begin`` to ``end``."""
    count = lines.shape[0]
    at = np.empty(result.shape[1], np.uint32)
    weight = np.empty(result.shape[1], lines.dtype)
    for index in range(begin, end):
        view = run[index, 0]
        bins = result[view]
        for i in range(count):
            line = lines[i]
            offset = _offset(i, count, line)
            first, last = _inside(middle[view], slope[view], offset, size, run[index, 1], run[index, 2])
            used = np.uint32(last - first)
            _cross(middle[view, first:last], slope[view, first:last], offset, size, at, weight)
            part = bins[first:last]
            for k in range(used):
                near = line[at[k]]
                part[k] += near + weight[k] * (line[at[k] + np.uint32(1)] - near)
        for k in range(run[index, 1], run[index, 2]):
            bins[k] *= scale[view, k]


@compiled
def _scatter(
    values: Array,
    size: int,
    run: Array,
    middle: Array,
    slope: Array,
    buffers: Array,
    begin: int,
    end: int,
) -> None:
    """Add to the buffers of lines ``begin`` to ``end`` what all rays leave there."""
    count = buffers.shape[0]
    at = np.empty(values.shape[1], np.uint32)
    weight = np.empty(values.shape[1], values.dtype)
    for i in range(begin, end):
        buffer = buffers[i]
        offset = _offset(i, count, buffer)
        for index in range(run.shape[0]):
            view = run[index, 0]
            first, last = _inside(middle[view], slope[view], offset, size, run[index, 1], run[index, 2])
            used = np.uint32(last - first)
            _cross(middle[view, first:last], slope[view, first:last], offset, size, at, weight)
            part = values[view, first:last]
            for k in range(used):
                far = weight[k] * part[k]
                buffer[at[k]] += part[k] - far
                buffer[at[k] + np.uint32(1)] += far


@compiled
def _offset(line: int, count: int, like: Array) -> Any:  # noqa: ANN401 (a number of the array's type)
    """Return the distance of a line from the middle one."""
    return like.dtype.type(line) - like.dtype.type((count - 1) / 2)


@compiled
def _cross(middle: Array, slope: Array, offset: float, size: int, at: Array, weight: Array) -> None:
    """Find the left neighbours of the crossings in a padded line, and the weights of the right ones."""
    kind = middle.dtype.type
    low, high = kind(_PAD - 1), kind(size + _PAD)
    for k in range(np.uint32(middle.size)):
        q = min(max(middle[k] + offset * slope[k] + kind(_PAD), low), high)
        whole = np.int32(q)
        at[k] = whole
        weight[k] = q - kind(whole)


@compiled
def _inside(middle: Array, slope: Array, offset: float, size: int, first: int, last: int) -> tuple[int, int]:
    """Return the bins of a run that meet a line within the image; along a run the crossing only rises or only falls."""
    rising = middle[last - 1] + offset * slope[last - 1] >= middle[first] + offset * slope[first]
    sign = 1.0 if rising else -1.0
    near, far = (-1.0, float(size)) if rising else (-float(size), 1.0)
    a, b = first, last
    while a < b:  # the first bin beyond the near end
        k = (a + b) // 2
        if sign * (middle[k] + offset * slope[k]) > near:
            b = k
        else:
            a = k + 1
    start, b = a, last
    while a < b:  # the first bin at or beyond the far end
        k = (a + b) // 2
        if sign * (middle[k] + offset * slope[k]) >= far:
            b = k
        else:
            a = k + 1
    return start, a
