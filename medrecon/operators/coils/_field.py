"""Eigenvectors of a band-limited field of Hermitian matrices, evaluated tile by tile, coarse grid first."""

from itertools import product

import torch
from torch import Tensor

from medrecon.operators.coils._eigen import dominant_eigenpairs, leading_eigenpairs

_STRIDES = (16, 4)
# Bytes of matrices per tile: on a CPU they should stay near the cache, on a GPU the launches should be few.
_TILE_BYTES_CPU = 8 << 20
_TILE_BYTES_GPU = 256 << 20
# Rows per tile: enough for the row transform to be a matrix product and not a matrix-vector one.
_TILE_ROWS = 64


def eigenvector_field(
    coefficients: Tensor, image_shape: tuple[int, int], *, wanted: int, floor: float, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """Decompose G(x) = Σ_δ A(δ) exp(2πi δ·(x - N//2)/N) on every ``stride``-th pixel of the image.

    G is smooth, so the eigenvectors of a coarser grid are nearly those of its neighbourhood; each grid refines the
    one before it, and only the coarsest is decomposed in full.

    Shapes: coefficients (odd, odd, C, C), δ = 0 in the middle; returns values (H', W', m) and vectors
    (H', W', C, m), m = min(2, C), the first ``wanted`` of them accurate where the value exceeds ``floor``.
    """
    coarse: tuple[int, Tensor] | None = None
    for level in [coarser for coarser in _STRIDES if coarser > stride]:
        coarse = level, _decompose(coefficients, image_shape, level, coarse, wanted, floor)[1]
    return _decompose(coefficients, image_shape, stride, coarse, wanted, floor)


def _decompose(
    coefficients: Tensor,
    image_shape: tuple[int, int],
    stride: int,
    coarse: tuple[int, Tensor] | None,
    wanted: int,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Decompose one grid, starting from the nearest vectors of the coarser one, given as (stride, vectors)."""
    coils = coefficients.shape[-1]
    count = min(2, coils)
    to_rows = _harmonics(coefficients, 0, image_shape[0], stride)
    to_columns = _harmonics(coefficients, 1, image_shape[1], stride)
    height, width = len(to_rows), len(to_columns)
    # The transform is separable: columns once, rows tile by tile, each a plain matrix product.
    half = torch.einsum("xq,pqcd->pxcd", to_columns, coefficients).flatten(2)
    values = to_rows.real.new_empty(height, width, count)
    vectors = to_rows.new_empty(height, width, coils, count)
    budget = _TILE_BYTES_GPU if coefficients.is_cuda else _TILE_BYTES_CPU
    tile_height = min(height, _TILE_ROWS)
    tile_width = max(1, budget // (tile_height * coils**2 * coefficients.element_size()))
    for top, left in product(range(0, height, tile_height), range(0, width, tile_width)):
        tile = slice(top, min(height, top + tile_height)), slice(left, min(width, left + tile_width))
        matrices = (to_rows[tile[0]] @ half[:, tile[1]].flatten(1)).reshape(-1, coils, coils)
        if coarse is None:
            found_values, found_vectors = leading_eigenpairs(matrices)
        else:
            start = _nearest(coarse[1], tile, stride / coarse[0])
            found_values, found_vectors = dominant_eigenpairs(matrices, start, wanted=wanted, floor=floor)
        values[tile] = found_values.reshape(values[tile].shape)
        vectors[tile] = found_vectors.reshape(vectors[tile].shape)
    return values, vectors


def _harmonics(like: Tensor, axis: int, size: int, stride: int) -> Tensor:
    """Return exp(2πi δ (x - N//2)/N) for every ``stride``-th x: (ceil(N/stride), extent of ``like``)."""
    extent = like.shape[axis]
    positions = torch.arange(0, size, stride, device=like.device, dtype=torch.float64) - size // 2
    offsets = torch.arange(extent, device=like.device, dtype=torch.float64) - extent // 2
    angle = 2 * torch.pi / size * torch.outer(positions, offsets)
    return torch.polar(torch.ones_like(angle), angle).to(like.dtype)


def _nearest(coarse: Tensor, tile: tuple[slice, slice], ratio: float) -> Tensor:
    """Look up the coarse vectors nearest to a tile of fine pixels: (P, C, m)."""
    rows, columns = (
        (torch.arange(span.start, span.stop, device=coarse.device) * ratio).round().long().clamp_max(size - 1)
        for span, size in zip(tile, coarse.shape[:2], strict=True)
    )
    return coarse[rows[:, None], columns].flatten(0, 1)
