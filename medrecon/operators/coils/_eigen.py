"""The two largest eigenpairs of many small Hermitian matrices, refined from a good guess."""

import torch
from torch import Tensor


def dominant_eigenpairs(
    matrices: Tensor, start: Tensor, *, wanted: int, floor: float, max_sweeps: int = 3
) -> tuple[Tensor, Tensor]:
    """Refine ``start`` to the dominant eigenvectors by subspace iteration with Rayleigh-Ritz.

    Repeats V <- orth(G V U), where U diagonalises V^H G V, until |G v - λ v| is small against λ_max for the ``wanted``
    first columns.
    Matrices that have not settled after ``max_sweeps`` go to a full eigendecomposition, so a bad start costs time,
    not accuracy. Where λ cannot exceed ``floor`` nothing is polished: the caller discards those.

    Shapes: matrices (P, C, C) positive semidefinite, start (P, C, m) orthonormal with m = min(2, C);
    returns values (P, m) in descending order and vectors (P, C, m).
    """
    # Above the cancellation in the residual, sqrt(eps).
    tolerance = 2e-3 if matrices.dtype == torch.complex64 else 1e-6
    if start.shape[-1] == 1:
        return matrices[..., 0].real, torch.ones_like(start)
    values, vectors, residuals = _sweep(matrices, start)
    for _ in range(max_sweeps - 1):
        if not bool(_unsettled(values, residuals, wanted, floor, tolerance).any()):
            break
        values, vectors, residuals = _sweep(matrices, vectors)
    index = _unsettled(values, residuals, wanted, floor, tolerance).nonzero()[:, 0]
    if index.numel():
        exact_values, exact_vectors = leading_eigenpairs(matrices[index])
        values[index], vectors[index] = exact_values, exact_vectors
    return values, vectors


def leading_eigenpairs(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose in full and return the m = min(2, C) largest pairs: (P, C, C) -> values (P, m), vectors (P, C, m)."""
    values, vectors = torch.linalg.eigh(matrices)
    return values[:, -2:].flip(-1), vectors[..., -2:].flip(-1)


def _unsettled(values: Tensor, residuals: Tensor, wanted: int, floor: float, tolerance: float) -> Tensor:
    """Mark matrices with a wanted eigenvalue that may exceed the floor and whose vector is not accurate yet."""
    # Some eigenvalue lies within the residual of every Ritz value.
    pending = (residuals > tolerance * values[:, :1].abs()) & (values + residuals > floor)
    return pending[:, :wanted].any(-1)


def _sweep(matrices: Tensor, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do one step: Ritz values of the basis, orthonormalised image of the Ritz vectors, residual norms.

    With Z = G V, everything follows from the 2x2 matrices V^H Z and Z^H Z: |Z u - λ V u|² = u^H Z^H Z u - λ².
    """
    image = matrices @ basis
    adjoint = image.mH
    values, rotation = _eigh_2x2(adjoint @ basis)
    gram = rotation.mH @ (adjoint @ image) @ rotation
    energies = torch.diagonal(gram, dim1=-2, dim2=-1).real
    residuals = (energies - values.square()).clamp_min(0).sqrt()
    return values, image @ (rotation @ _orthogonaliser(gram)), residuals


def _eigh_2x2(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonalise Hermitian 2x2 matrices in closed form, larger eigenvalue first: (P, 2, 2) -> (P, 2), (P, 2, 2)."""
    upper, lower, off = matrix[:, 0, 0].real, matrix[:, 1, 1].real, matrix[:, 0, 1]
    mean, half = (upper + lower) / 2, (upper - lower) / 2
    radius = torch.hypot(half, off.abs())
    # Two formulas for the same vector; the one without cancellation is taken.
    positive = half >= 0
    first = torch.where(positive, (half + radius).to(off.dtype), off)
    second = torch.where(positive, off.conj(), (radius - half).to(off.dtype))
    norm = torch.sqrt(first.real.square() + first.imag.square() + second.real.square() + second.imag.square())
    degenerate = norm == 0
    norm = norm.masked_fill(degenerate, 1)
    first, second = (first / norm).masked_fill(degenerate, 1), second / norm
    rotation = torch.stack((first, -second.conj(), second, first.conj()), -1).reshape(-1, 2, 2)
    return torch.stack((mean + radius, mean - radius), -1), rotation


def _orthogonaliser(gram: Tensor) -> Tensor:
    """Return the 2x2 matrices T with T^H (Z^H Z) T = 1, upper triangular (Gram-Schmidt), from Z^H Z.

    A second column that is parallel to the first up to rounding becomes zero: an honest nothing, where a normalised
    rounding error would spoil the Ritz values of the next step.
    """
    precision = torch.finfo(gram.dtype).eps
    upper, lower, off = gram[:, 0, 0].real, gram[:, 1, 1].real, gram[:, 0, 1]
    scale = torch.where(upper > 0, upper.rsqrt(), 0)
    rest = lower - (off.real.square() + off.imag.square()) * scale.square()
    inverse = torch.where(rest > 100 * precision * lower, rest.rsqrt(), 0)
    mixed = -off * (scale.square() * inverse)
    zero = torch.zeros_like(off)
    return torch.stack((scale.to(off.dtype), mixed, zero, inverse.to(off.dtype)), -1).reshape(-1, 2, 2)
