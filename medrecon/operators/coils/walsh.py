"""Coil sensitivities as dominant eigenvectors of the local coil covariance."""

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.coils._checks import check_calibration, check_image_shape
from medrecon.operators.coils._field import eigenvector_field
from medrecon.operators.coils._phase import principal_coil, reference_phase
from medrecon.operators.coils._windowed import support, windowed_coil_images


def walsh(calibration: Tensor, image_shape: tuple[int, int], *, window: int = 5, crop: float = 0.0) -> Tensor:
    """Estimate coil sensitivities as the dominant eigenvectors of the local coil covariance.

    R(x) = Σ_{x' near x} m(x') m(x')^H over a ``window`` x ``window`` neighbourhood of the low-resolution coil images m
    (Hann-windowed calibration region); s(x) is the unit vector with R s = λ_max s.

    Parameters
    ----------
    calibration
        Fully sampled k-space (coils, h, w) around DC, any unit; see :func:`find_calibration_region`.
    image_shape
        Pixels (H, W) of the maps, at least (h, w), over the field of view of ``calibration``; isocentre at N//2.
    window
        Side of the neighbourhood in pixels, odd; it wraps around at the border.
    crop
        Maps are set to zero where sqrt(λ_max) is at most ``crop`` times its maximum, in [0, 1).

    Returns
    -------
    Tensor
        Maps (1, coils, H, W) with Σ_c |s_c(x)|² = 1, or 0 where masked, in the dtype of ``calibration``, phase as in
        :func:`espirit`.

    Raises
    ------
    InputError
        Where the calibration region has the wrong shape or dtype, or is larger than the image.
    NumericalError
        Where the calibration data hold NaN or Inf, or no energy.
    UsageError
        Where an option is out of range.

    Notes
    -----
    Walsh et al., Adaptive reconstruction of phased array MR imagery, Magn Reson Med 43:682-690, 2000,
    https://doi.org/10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G, with white noise.
    One coil gives a map of ones. No gradients.

    Examples
    --------
    >>> calibration = torch.randn(4, 24, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> walsh(calibration, (64, 48)).shape
    torch.Size([1, 4, 64, 48])
    """
    check_image_shape(image_shape, crop, "walsh")
    if window < 1 or window % 2 == 0:
        raise UsageError(f"walsh: window must be a positive odd number of pixels, got {window}")
    check_calibration(calibration, "walsh", largest=image_shape)
    with torch.no_grad():
        grid = 2 * calibration.shape[1] - 1, 2 * calibration.shape[2] - 1
        coefficients = _local_covariance(windowed_coil_images(calibration, grid), image_shape, window)
        values, vectors = eigenvector_field(coefficients, image_shape, wanted=1, floor=0.0)
        values, vectors = values[..., 0], vectors[..., 0].permute(2, 0, 1)
        inside = support(values.clamp_min(0).sqrt(), crop)
        return (reference_phase(vectors, principal_coil(calibration)) * inside).unsqueeze(0)


def _local_covariance(images: Tensor, image_shape: tuple[int, int], window: int) -> Tensor:
    """Return the Fourier coefficients of R(x), (2h-1, 2w-1, C, C), from coil images on the grid (2h-1, 2w-1).

    The images hold h x w harmonics, their products twice as many, and the sum over the neighbourhood only weights
    those: R is never stored on the image grid.
    """
    near = images.permute(1, 2, 0)
    products = near.unsqueeze(-1) * near.unsqueeze(-2).conj()
    # Samples start at position 0, not at -(N//2): the shift is undone before the transform.
    products = torch.fft.ifftshift(products, dim=(0, 1))
    coefficients: Tensor = torch.fft.fft2(products, dim=(0, 1), norm="forward")
    coefficients = torch.fft.fftshift(coefficients, dim=(0, 1))
    reach = window // 2
    for axis, size in enumerate(image_shape):
        extent = images.shape[1 + axis]
        offsets = torch.arange(extent, device=images.device, dtype=torch.float64) - extent // 2
        shifts = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float64)
        weights = torch.cos(2 * torch.pi / size * torch.outer(offsets, shifts)).mean(1).to(images.real.dtype)
        coefficients = coefficients * (weights[:, None, None, None] if axis == 0 else weights[:, None, None])
    return coefficients
