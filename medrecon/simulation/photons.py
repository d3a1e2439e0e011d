"""The noise of X-ray detectors."""

import math

import torch
from torch import Tensor

from medrecon.errors import NumericalError, UsageError

_NOTHING_LEFT = 0.5


def photon_counts(
    line_integrals: Tensor, *, counts: float, electronic_noise: float = 0.0, generator: torch.Generator
) -> Tensor:
    r"""Return photons behind an object, :math:`I \sim \mathrm{Poisson}(I_0 e^{-y}) + \sigma\,\mathcal{N}(0, 1)`.

    Drawn on the CPU in double precision, so a generator gives the same on every device. Electronic
    noise makes values below zero possible, as detectors that subtract their dark current do.

    Parameters
    ----------
    line_integrals
        y, without unit.
    counts
        I₀, photons a ray without an object.
    electronic_noise
        σ, in photons.
    generator
        CPU generator.

    Returns
    -------
        float32 of the shape of y.
    """
    for name, value, least in (("counts", counts, 0), ("electronic_noise", electronic_noise, -1)):
        if not least < value < math.inf or value < 0:
            raise UsageError(f"photon_counts: {name} must be a positive number of photons, got {value}")
    y = line_integrals.detach().cpu().double()
    if not bool(torch.isfinite(y).all()):
        raise NumericalError("photon_counts: the line integrals hold NaN or Inf")
    expected = counts * torch.exp(-y)
    dark = float((expected < 1).double().mean())
    if dark > _NOTHING_LEFT or float(y.min()) < -1:
        raise UsageError(
            f"line integrals run from {float(y.min()):.3g} to {float(y.max()):.3g}, so {dark:.0%} of the rays would "
            "keep less than one photon: the image is no attenuation in 1/mm, or its pixel size is wrong (--unit)"
        )
    drawn = torch.poisson(expected, generator=generator)
    if electronic_noise:
        drawn += electronic_noise * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return drawn.to(line_integrals.device, torch.float32)
