"""Orthonormal periodic wavelets of Daubechies, along any number of axes."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import UsageError

WAVELETS = {"haar": 1, "db2": 2, "db3": 3, "db4": 4}
"""Names and numbers of vanishing moments; a filter has twice as many taps."""

# The smooth band is not halved below this many samples.
_SMALLEST = 8


@cache
def daubechies_filter(moments: int) -> tuple[float, ...]:
    """Return the 2p taps of the orthonormal low-pass filter with p vanishing moments and least phase.

    Spectral factorisation (Daubechies, Comm. Pure Appl. Math. 41:909, 1988): |H(ω)|² = 2 cos(ω/2)^(2p)
    P(sin²(ω/2)) with P(u) = Σ_k C(p - 1 + k, k) u^k. With u = (2 - z - 1/z) / 4 each root u of P is a
    pair z, 1/z; H takes the z inside the unit circle.

    >>> [round(value, 4) for value in daubechies_filter(2)]
    [0.483, 0.8365, 0.2241, -0.1294]
    """
    taps = np.array([1.0 + 0j])
    for root in np.roots([math.comb(moments - 1 + k, k) for k in reversed(range(moments))]):
        middle = 1 - 2 * root
        shift = np.sqrt(middle**2 - 1 + 0j)
        taps = np.convolve(taps, [1, -min(middle + shift, middle - shift, key=abs)])
    for _ in range(moments):
        taps = np.convolve(taps, [1, 1])
    real = taps.real * (math.sqrt(2) / taps.real.sum())
    return tuple(float(value) for value in real)


class Bands(NamedTuple):
    """Wavelet coefficients: ``smooth`` (L, *spatial), ``details`` per level, finest first, (L, bands, *spatial)."""

    smooth: Tensor
    details: list[Tensor]


class WaveletTransform:
    """Orthonormal wavelet transform of periodic signals, real or complex, with any number of spatial axes.

    Every level splits the smooth band of the one before along all axes that are still long enough. Axes
    must be multiples of 2^(their levels); :attr:`grid` is the least that is.

    Parameters
    ----------
    spatial
        Sizes of the axes, before padding to :attr:`grid`.
    wavelet
        "haar", "db2", "db3" or "db4".
    levels
        At most; an axis stops when its smooth band would have less than eight samples.

    Examples
    --------
    >>> import torch
    >>> transform = WaveletTransform((30, 32), "haar", 2)
    >>> transform.grid
    (32, 32)
    >>> bands = transform.analyze(torch.ones(1, 32, 32))
    >>> bands.smooth.shape, [tuple(band.shape) for band in bands.details]
    (torch.Size([1, 8, 8]), [(1, 3, 16, 16), (1, 3, 8, 8)])
    """

    def __init__(self, spatial: Sequence[int], wavelet: str = "db2", levels: int = 4) -> None:
        if wavelet not in WAVELETS:
            raise UsageError(f"wavelet must be one of {', '.join(WAVELETS)}, got {wavelet!r}")
        low = daubechies_filter(WAVELETS[wavelet])
        high = tuple((-1) ** k * value for k, value in enumerate(reversed(low)))
        self._taps = tuple(zip(low, high, strict=True))
        self.levels = tuple(_levels(size, levels) for size in spatial)
        self.grid = tuple(-(-size // 2**level) * 2**level for size, level in zip(spatial, self.levels, strict=True))
        depth = max(self.levels, default=0)
        # axes of each level, in a tensor (L, bands, *spatial)
        self._axes = [[axis + 2 for axis, own in enumerate(self.levels) if own > level] for level in range(depth)]

    def analyze(self, x: Tensor) -> Bands:
        """Return the coefficients of x (L, *grid)."""
        smooth = x
        details = []
        for axes in self._axes:
            bands = smooth[:, None]
            for axis in axes:
                bands = self._split(bands, axis)
            smooth = bands[:, 0]
            details.append(bands[:, 1:])
        return Bands(smooth, details)

    def synthesize(self, bands: Bands) -> Tensor:
        """Return the signals (L, *grid) of these coefficients: the inverse, and the adjoint, of :meth:`analyze`."""
        x = bands.smooth
        for axes, details in zip(reversed(self._axes), reversed(bands.details), strict=True):
            parts = torch.cat((x[:, None], details), dim=1)
            for axis in reversed(axes):
                parts = self._merge(parts, axis)
            x = parts[:, 0]
        return x

    def _split(self, x: Tensor, axis: int) -> Tensor:
        """Halve an axis, double the bands: (L, S, …) to (L, 2S, …), low passes first."""
        half = x.shape[axis] // 2
        phases = x.unflatten(axis, (half, 2))
        reach = len(self._taps) // 2 - 1
        padded = [_wrapped(phases.select(axis + 1, phase), axis, after=reach) for phase in (0, 1)]
        views = [padded[k % 2].narrow(axis, k // 2, half) for k in range(len(self._taps))]
        result = x.new_empty((x.shape[0], 2, *views[0].shape[1:]))
        for band in (0, 1):
            _combine(views, [taps[band] for taps in self._taps], result[:, band])
        return result.flatten(1, 2)

    def _merge(self, x: Tensor, axis: int) -> Tensor:
        """Undo :meth:`_split`."""
        half = x.shape[axis]
        reach = len(self._taps) // 2 - 1
        bands = _wrapped(x, axis, before=reach).unflatten(1, (2, -1))
        shape = list(x.shape)
        shape[1] //= 2
        result = x.new_empty((*shape[: axis + 1], 2, *shape[axis + 1 :]))
        for phase in (0, 1):
            taps = self._taps[phase::2]
            views = [bands[:, band].narrow(axis, reach - j, half) for j in range(reach + 1) for band in (0, 1)]
            _combine(views, [value for pair in taps for value in pair], result.select(axis + 1, phase))
        return result.flatten(axis, axis + 1)


def _levels(size: int, most: int) -> int:
    """Return how often an axis can be halved, rounding up, with enough samples left."""
    sizes = [-(-size // 2**level) for level in range(most + 1)]
    return sum(1 for _, after in pairwise(sizes) if after >= _SMALLEST)


def _wrapped(x: Tensor, axis: int, *, before: int = 0, after: int = 0) -> Tensor:
    """Extend an axis periodically; contiguous, so that the many passes that follow are fast."""
    if before == after == 0:
        return x.contiguous()
    size = x.shape[axis]
    return torch.cat((x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)), dim=axis)


def _combine(views: list[Tensor], weights: list[float], out: Tensor) -> None:
    """Write the weighted sum of the views into ``out``."""
    total = views[0] * weights[0]
    for view, weight in zip(views[1:], weights[1:], strict=True):
        total.add_(view, alpha=weight)
    out.copy_(total)
