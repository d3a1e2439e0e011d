"""The phase that every method leaves free, fixed the same way for all of them."""

import torch
from torch import Tensor


def principal_coil(calibration: Tensor) -> Tensor:
    """Return the unit coil combination u with the most calibration energy: (coils, h, w) -> (coils,).

    u is the dominant eigenvector of Σ_k y(k) y(k)^H, its largest component real and positive.
    """
    samples = calibration.flatten(1).to(torch.complex128)
    samples = samples / samples.abs().amax()
    vector: Tensor = torch.linalg.eigh(samples @ samples.mH)[1][:, -1]
    largest = vector[vector.abs().argmax()]
    return (vector * (largest.conj() / largest.abs())).to(calibration.dtype)


def reference_phase(maps: Tensor, principal: Tensor) -> Tensor:
    """Rotate each pixel of (..., coils, H, W) so that u^H s(x) is real and not negative."""
    projection = torch.einsum("c,...chw->...hw", principal.conj(), maps)
    magnitude = projection.abs()
    rotation = torch.where(magnitude > 0, projection.conj() / magnitude.clamp_min(1e-30), 1)
    return maps * rotation.unsqueeze(-3)
