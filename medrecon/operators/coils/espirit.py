"""ESPIRiT: coil sensitivities as eigenvectors of the calibration operator."""

from typing import Literal

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.coils._checks import check_calibration, check_image_shape
from medrecon.operators.coils._field import eigenvector_field
from medrecon.operators.coils._kernels import kernel_autocorrelation, signal_kernels
from medrecon.operators.coils._phase import principal_coil, reference_phase
from medrecon.operators.coils.espirit_result import EspiritResult

# "auto": two sets if the second eigenvalue passes _FOLD_VALUE on a compact part of the object of this share.
_FOLD_VALUE = 0.8
_FOLD_SHARE = 0.01
# The folded part of an object is strong; noise kept as signal raises every eigenvalue and must not look like folding.
_FOLD_THRESHOLD = 0.05
_DECISION_GRID = 64


def espirit(
    calibration: Tensor,
    image_shape: tuple[int, int],
    *,
    kernel_size: int = 6,
    threshold: float = 0.03,
    crop: float = 0.8,
    num_sets: Literal[1, 2, "auto"] = 1,
) -> EspiritResult:
    """Estimate coil sensitivities from the calibration region of one slice by ESPIRiT.

    Every k x k patch of the calibration data lies in a subspace with projector W W^H. In the image that makes
    s(x) an eigenvector with eigenvalue one: G(x) s(x) = s(x), G(x) = (1/k²) Σ_n ŵ_n(x) ŵ_n(x)^H, where ŵ_n is the
    Fourier transform of the n-th kernel. The maps are the dominant eigenvectors of G; two eigenvalues near one mean
    that two parts of the object lie on the same pixel (field of view too small), hence two sets.

    Parameters
    ----------
    calibration
        Fully sampled k-space (coils, h, w) around DC, any unit; see :func:`find_calibration_region`. Its position
        does not matter.
    image_shape
        Pixels (H, W) of the maps, over the field of view of ``calibration`` (1 / sample spacing). Pixel N//2 is the
        isocentre: the maps fit images by the centred unitary Fourier transform.
    kernel_size
        Side k of the patches in samples.
    threshold
        Singular values below ``threshold`` times the largest are taken for noise, in [0, 1).
    crop
        Maps are set to zero where their eigenvalue is at most ``crop``, in [0, 1).
    num_sets
        Number of map sets, or "auto": two if a compact part of at least 1 % of the object has a second eigenvalue
        above 0.8 (at a ``threshold`` of at least 0.05), one otherwise or with fewer than three coils.

    Returns
    -------
    EspiritResult
        Maps (sets, coils, H, W) with Σ_c |s_c(x)|² = 1 per set, or 0 where masked, in the dtype of ``calibration``,
        and eigenvalues (sets, H, W). The free phase is fixed by u^H s(x) >= 0 with u the first principal component
        of the coils, smooth wherever u sees signal.

    Raises
    ------
    InputError
        Where the calibration region has the wrong shape or dtype or is smaller than the kernel.
    NumericalError
        Where the calibration data hold NaN or Inf, or no energy.
    UsageError
        Where an option is out of range.

    Notes
    -----
    Uecker et al., ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI, Magn Reson Med 71:990-1001, 2014,
    https://doi.org/10.1002/mrm.24751. One coil gives a map of ones. No gradients.

    Examples
    --------
    >>> calibration = torch.randn(4, 24, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> espirit(calibration, (64, 48)).maps.shape
    torch.Size([1, 4, 64, 48])
    """
    check_image_shape(image_shape, crop, "espirit")
    if kernel_size < 2:
        raise UsageError(f"espirit: kernel_size must be at least 2, got {kernel_size}")
    if not 0 <= threshold < 1:
        raise UsageError(f"espirit: threshold must lie in [0, 1), got {threshold}")
    if num_sets not in (1, 2, "auto"):
        raise UsageError(f'espirit: num_sets must be 1, 2 or "auto", got {num_sets!r}')
    check_calibration(calibration, "espirit", smallest=kernel_size)
    coils = calibration.shape[0]
    if coils == 1:
        return _single_coil(calibration, image_shape, 2 if num_sets == 2 else 1)
    with torch.no_grad():
        sets = num_sets
        if sets == "auto":
            strong = signal_kernels(calibration, kernel_size, max(threshold, _FOLD_THRESHOLD))
            sets = _choose_sets(kernel_autocorrelation(strong), image_shape, crop)
        coefficients = kernel_autocorrelation(signal_kernels(calibration, kernel_size, threshold))
        values, vectors = eigenvector_field(coefficients, image_shape, wanted=sets, floor=crop)
        eigenvalues = values[..., :sets].permute(2, 0, 1).clamp(0, 1)
        maps = vectors[..., :sets].permute(3, 2, 0, 1).contiguous()
        maps = reference_phase(maps, principal_coil(calibration)) * (eigenvalues > crop).unsqueeze(1)
    return EspiritResult(maps, eigenvalues.contiguous())


def _choose_sets(coefficients: Tensor, image_shape: tuple[int, int], crop: float) -> Literal[1, 2]:
    """Decide on a coarse grid whether the object folds onto itself."""
    if coefficients.shape[-1] == 2:
        return 1  # two sets would span both coils and constrain nothing
    stride = max(1, min(image_shape) // _DECISION_GRID)
    floor = min(crop, _FOLD_VALUE)
    values, _ = eigenvector_field(coefficients, image_shape, wanted=2, floor=floor, stride=stride)
    object_size = int((values[..., 0] > crop).sum())
    folded = (values[..., 1] > _FOLD_VALUE).to(values.dtype)
    # Erosion by 3 x 3 drops lines and specks: edges and noise make the second eigenvalue large there.
    compact = -torch.nn.functional.max_pool2d(-folded[None, None], 3, stride=1)
    return 2 if float(compact.sum()) > _FOLD_SHARE * max(object_size, 1) else 1


def _single_coil(calibration: Tensor, image_shape: tuple[int, int], sets: int) -> EspiritResult:
    """Return a map of ones: one coil cannot tell its sensitivity from the object."""
    maps = calibration.new_zeros(sets, 1, *image_shape)
    maps[0] = 1
    return EspiritResult(maps, maps[:, 0].real.contiguous())
