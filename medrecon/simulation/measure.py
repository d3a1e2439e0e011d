"""Measurements of known images, with the noise of a receiver."""

from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.errors import NumericalError, UsageError
from medrecon.operators.base import LinearOperator
from medrecon.operators.recipes import Recipe


class Simulation(NamedTuple):
    """Measurements ``(S, *data_shape)`` and the operator that made them."""

    measurements: Tensor
    operator: LinearOperator


def simulate(
    image: Tensor, operator: LinearOperator | Recipe, *, noise: float = 0.0, generator: torch.Generator
) -> Simulation:
    r"""Measure a stack of images: :math:`y = A x + n` where A samples, and exact zeros elsewhere.

    n is white Gaussian. Its standard deviation, per real and per imaginary part as MRI counts it, is
    ``noise`` · ‖A‖ · max |x| over the whole stack: the noise of a receiver, which depends neither on the
    slice nor on how many samples are taken. With a unitary Fourier transform and normalised maps it is
    the standard deviation in the fully sampled image, as a fraction of the brightest pixel. Noise is
    drawn on the CPU for the full data shape, so a generator gives the same noise on every device, and
    operators that differ in their mask get the same value at the same sample.

    Parameters
    ----------
    image
        ``(S, H, W)``, or ``(S, C, H, W)`` for operators on several channels; real or complex, made
        complex where the operator wants it.
    operator
        Operator for one slice or for all S, or a recipe, of which one operator is drawn for the stack.
    noise
        Relative standard deviation, 0 for none.
    generator
        CPU generator.

    Returns
    -------
        Measurements on the device of the image, and the operator.
    """
    if image.ndim not in (3, 4):
        raise UsageError(f"simulate: expected images (S, H, W) or (S, C, H, W), got shape {tuple(image.shape)}")
    if not 0 <= noise < float("inf"):
        raise UsageError(f"simulate: noise is a relative standard deviation >= 0, got {noise}")
    peak = float(image.abs().max()) if image.numel() else 0.0
    if peak != peak or peak in (0.0, float("inf")):
        raise NumericalError(f"simulate: the largest magnitude of the image is {peak}; expected a finite, non-zero one")
    if isinstance(operator, Recipe):
        height, width = image.shape[-2:]
        operator = operator.draw((height, width), generator).to(image.device)
    x = _as_image(image, operator)
    slices = x.shape[0]
    if operator.batch_size not in (1, slices):
        raise UsageError(
            f"simulate: the operator serves a batch of {operator.batch_size}, the stack has {slices} slices"
        )
    with torch.no_grad():
        if operator.batch_size == 1:
            clean = torch.cat([operator(x[index : index + 1]) for index in range(slices)])
        else:
            clean = operator(x)
        if noise == 0:
            return Simulation(clean, operator)
        scale = noise * peak * operator.norm_bound().reshape(-1, *[1] * len(operator.data_shape))
        sampled = _sampled(operator)
        grain = torch.cat([_white(operator, generator) for _ in range(slices)]).to(image.device)
        return Simulation(clean + torch.where(sampled, scale * grain, 0).to(clean.dtype), operator)


def _as_image(image: Tensor, operator: LinearOperator) -> Tensor:
    x = image[:, None] if image.ndim == 3 else image
    if image.is_complex() and not operator.image_dtype.is_complex:
        raise UsageError(
            f"simulate: {type(operator).__name__} measures real images, got {image.dtype}; pass image.abs() or another "
            f"operator"
        )
    double = image.dtype in (torch.float64, torch.complex128)
    if operator.image_dtype.is_complex:
        return x.to(torch.complex128 if double else torch.complex64)
    return x.to(torch.float64 if double else torch.float32)


def _sampled(operator: LinearOperator) -> Tensor:
    """Tell which measurements exist: those that a generic image does not leave at exactly zero."""
    generic = torch.randn(
        (operator.batch_size, *operator.image_shape),
        dtype=operator.image_dtype,
        generator=torch.Generator().manual_seed(0),
    )
    return operator(generic.to(operator.device)) != 0


def _white(operator: LinearOperator, generator: torch.Generator) -> Tensor:
    """Draw noise of one slice, unit variance per real part."""
    parts = 2 if operator.data_dtype.is_complex else 1
    drawn = torch.randn((1, *operator.data_shape, parts), generator=generator)
    return torch.view_as_complex(drawn) if parts == 2 else drawn[..., 0]
