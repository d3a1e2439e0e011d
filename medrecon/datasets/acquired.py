"""Simulated MRI as a scanner would make it: every coil with noise of its own, its maps unknown."""

import torch
from torch import Tensor

from medrecon.errors import InputError, NumericalError
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.coils import LEAST_CALIBRATION, MapMethod, estimate_maps, find_calibration_region
from medrecon.simulation import simulate


def acquire(
    image: Tensor, operator: CartesianMRI, *, noise: float, maps: MapMethod | None, generator: torch.Generator
) -> tuple[Tensor, CartesianMRI, Tensor]:
    r"""Return measurements, the operator that a reconstruction would have, and what a full acquisition would show.

    Coil images :math:`I_c = S_c x + n_c` are measured at all samples; the measurements are those that the
    mask leaves. The truth is what fully sampled scans are judged by,

    .. math:: \sqrt{\textstyle\sum_c |I_c|²} \cdot e^{iφ}, \qquad φ = \arg \textstyle\sum_c \bar{S}_c I_c,

    noise included, as in the reference images of fastMRI: a network that learns it keeps the noise that was
    measured and invents none. For one coil it is I itself.

    Parameters
    ----------
    image
        True image (1, 1, H, W), complex.
    operator
        With a mask of 0 and 1 and one set of maps, or none.
    noise
        Relative standard deviation, see :func:`~medrecon.simulation.simulate`.
    maps
        How S is estimated from the calibration lines of the measurements; None knows it. Known maps also
        serve where the mask leaves no calibration region.
    generator
        CPU generator.
    """
    shape = operator.image_shape[1:]
    true_maps = operator.maps if operator.has_maps else None
    full = CartesianMRI(None, true_maps, image_shape=shape)
    kspace = simulate(image, full, noise=noise, generator=generator).measurements
    mask = operator.mask
    measurements = kspace * mask[:, None]
    coil_images = CartesianMRI(None, image_shape=shape).adjoint(kspace.transpose(0, 1)).transpose(0, 1)
    if true_maps is None:
        return measurements, operator, coil_images
    found = None if maps is None else _estimated(measurements[0], mask[0], shape, maps)
    if found is not None:
        operator = CartesianMRI(mask, found)
    combined = (operator.maps[:, 0].conj() * coil_images).sum(1, keepdim=True)
    direction = torch.where(combined.abs() > 0, torch.sgn(combined), 1)
    return measurements, operator, torch.linalg.vector_norm(coil_images, dim=1, keepdim=True) * direction


def _estimated(kspace: Tensor, mask: Tensor, shape: tuple[int, ...], method: MapMethod) -> Tensor | None:
    try:
        region = find_calibration_region(kspace, mask, min_size=LEAST_CALIBRATION)
        return estimate_maps(region.extract(kspace), (shape[0], shape[1]), method)
    except (InputError, NumericalError):
        return None
