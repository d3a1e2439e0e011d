"""The k-space half of ESPIRiT: from the calibration samples to the autocorrelation of the signal-space kernels."""

import torch
from torch import Tensor


def signal_kernels(calibration: Tensor, kernel_size: int, threshold: float) -> Tensor:
    """Find an orthonormal basis of the patches of the calibration region: (coils, h, w) -> (coils, k, k, n).

    With the patches as columns of Y = W Σ V^H, the columns w of W with σ > threshold σ_max are kept.
    """
    coils = calibration.shape[0]
    # In double: the Gram matrix squares the condition number, and it is small.
    scaled = calibration.to(torch.complex128)
    scaled = scaled / scaled.abs().amax()
    patches = scaled.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
    patches = patches.permute(0, 3, 4, 1, 2).reshape(coils * kernel_size**2, -1)
    # The same W comes out of Y Y^H and of Y^H Y: decompose the smaller one.
    tall = patches.shape[0] > patches.shape[1]
    gram = patches.mH @ patches if tall else patches @ patches.mH
    energies, vectors = torch.linalg.eigh(gram)
    kept = energies > threshold**2 * energies[-1]
    basis: Tensor = vectors[:, kept]
    if tall:
        basis = patches @ basis / energies[kept].sqrt()
    return basis.to(calibration.dtype).reshape(coils, kernel_size, kernel_size, -1)


def kernel_autocorrelation(kernels: Tensor) -> Tensor:
    """Return A(δ) = (1/k²) Σ_n Σ_{l - l' = δ} w_n(l) w_n(l')^H for |δ| < k.

    Shapes: (coils, k, k, n) -> (2k-1, 2k-1, coils, coils). Offsets δ run from -(k-1) to k-1 along the first two axes.
    """
    kernel_size = kernels.shape[1]
    extent = 2 * kernel_size - 1
    # On a grid of 2k-1 points the cyclic correlation is the linear one: no C x C convolutions.
    spectrum = torch.fft.ifft2(kernels, s=(extent, extent), dim=(1, 2), norm="forward")
    spectrum = spectrum.permute(1, 2, 0, 3).contiguous()
    products: Tensor = spectrum @ spectrum.mH / kernel_size**2
    correlation: Tensor = torch.fft.fft2(products, dim=(0, 1), norm="forward")
    centred: Tensor = torch.fft.fftshift(correlation, dim=(0, 1))
    return centred
