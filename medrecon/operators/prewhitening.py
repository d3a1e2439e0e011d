"""Coil prewhitening: make the receiver noise equal and independent in all coils."""

import torch
from torch import Tensor

from medrecon.errors import NumericalError


def noise_covariance(noise: Tensor) -> Tensor:
    r"""Covariance :math:`C = \frac{1}{n - 1} \sum_i n_i n_i^H` of a noise scan, mean removed.

    Parameters
    ----------
    noise
        Complex samples measured without excitation, (samples, coils).

    Returns
    -------
    Hermitian (coils, coils), of the dtype of ``noise``; accumulated in complex128.
    """
    if noise.ndim != 2 or not noise.is_complex():
        raise ValueError(
            f"noise_covariance: expected complex samples (samples, coils), got {tuple(noise.shape)} {noise.dtype}"
        )
    samples, coils = noise.shape
    if samples <= coils:
        raise NumericalError(
            f"noise_covariance: {samples} samples of {coils} coils; at least {coils + 1} needed, better 10 times more"
        )
    centred = noise.to(torch.complex128)
    centred = centred - centred.mean(dim=0)
    covariance = centred.mT @ centred.conj() / (samples - 1)
    return covariance.to(noise.dtype)


def whitening_matrix(covariance: Tensor) -> Tensor:
    r"""Whitener :math:`W = L^{-1}` with :math:`C = L L^H`, so that :math:`W C W^H = I`.

    Raises
    ------
    NumericalError
        When the covariance is not finite and positive definite: a dead or doubled coil.
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"whitening_matrix: expected (coils, coils), got {tuple(covariance.shape)}")
    wide = covariance.to(torch.complex128)
    if not torch.isfinite(torch.view_as_real(wide)).all():
        raise NumericalError("whitening_matrix: the noise covariance has NaN or Inf entries")
    variances = wide.diagonal().real
    lower, info = torch.linalg.cholesky_ex(wide)
    pivots = lower.diagonal().real
    # a pivot is what is left of a coil's noise once the coils before it explain their part
    if int(info) or float(variances.min()) <= 0 or bool((pivots.square() < 1e-6 * variances).any()):
        raise NumericalError(
            "whitening_matrix: the noise covariance is singular: a coil is dead or a copy of others;"
            " leave that coil out or do not prewhiten"
        )
    identity = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    return torch.linalg.solve_triangular(lower, identity, upper=False).to(covariance.dtype)


def prewhiten(kspace: Tensor, whitener: Tensor) -> Tensor:
    """Apply a whitener (coils, coils) to k-space (..., coils, H, W)."""
    if kspace.ndim < 3 or kspace.shape[-3] != whitener.shape[-1]:
        raise ValueError(
            f"prewhiten: a whitener of {whitener.shape[-1]} coils does not fit k-space (..., coils, H, W)"
            f" of shape {tuple(kspace.shape)}"
        )
    return torch.einsum("dc,...chw->...dhw", whitener.to(kspace.dtype), kspace)
