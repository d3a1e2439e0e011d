"""Coil sensitivities as the low-resolution coil images over their root sum of squares."""

import torch
from torch import Tensor

from medrecon.operators.coils._checks import check_calibration, check_image_shape
from medrecon.operators.coils._phase import principal_coil, reference_phase
from medrecon.operators.coils._windowed import support, windowed_coil_images


def low_resolution_maps(calibration: Tensor, image_shape: tuple[int, int], *, crop: float = 0.0) -> Tensor:
    """Estimate coil sensitivities by dividing low-resolution coil images by their root sum of squares.

    s_c(x) = m_c(x) / sqrt(Σ_c |m_c(x)|²), with m_c the inverse transform of the Hann-windowed calibration region.
    The cheapest choice: biased where the object varies within one low-resolution pixel, noise outside the object.

    Parameters
    ----------
    calibration
        Fully sampled k-space (coils, h, w) around DC, any unit; see :func:`find_calibration_region`.
    image_shape
        Pixels (H, W) of the maps, at least (h, w), over the field of view of ``calibration``; isocentre at N//2.
    crop
        Maps are set to zero where the root sum of squares is at most ``crop`` times its maximum, in [0, 1).

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
    McKenzie et al., Self-calibrating parallel imaging with automatic coil sensitivity extraction, Magn Reson Med
    47:529-538, 2002, https://doi.org/10.1002/mrm.10087. One coil gives a map of ones. No gradients.

    Examples
    --------
    >>> calibration = torch.randn(4, 24, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> low_resolution_maps(calibration, (64, 48)).shape
    torch.Size([1, 4, 64, 48])
    """
    check_image_shape(image_shape, crop, "low_resolution_maps")
    check_calibration(calibration, "low_resolution_maps", largest=image_shape)
    with torch.no_grad():
        images = windowed_coil_images(calibration, image_shape)
        parts = torch.view_as_real(images)
        peak = parts.abs().amax()  # squares of raw data as small as 1e-20 would vanish
        magnitude = peak * (parts / peak).square().sum((0, -1)).sqrt()  # vector_norm takes ten times as long
        inside = support(magnitude, crop)
        maps = images / magnitude.masked_fill(~inside, 1)
        return (reference_phase(maps, principal_coil(calibration)) * inside).unsqueeze(0)
