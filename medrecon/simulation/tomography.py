"""Sinograms of known images, as a scanner counts them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.io.image import Image
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.hounsfield import MU_WATER, from_hounsfield, to_hounsfield
from medrecon.operators.recipes import Recipe
from medrecon.simulation.photons import photon_counts

Unit = Literal["auto", "hu", "mu"]

_SQUARE = 1e-3
_CERTAINLY_HU = -100.0


@dataclass(frozen=True)
class SimulatedSinogram:
    """What a CT scanner would have measured of an image.

    Parameters
    ----------
    data
        (slices, 1, views, bins) float32: counts, or line integrals where no counts were asked for.
    operator
        The geometry, in mm.
    quantity
        Which of the two.
    reference
        (slices, H, W) float32, what was measured: in HU, or in 1/mm.
    mu_water
        Attenuation of water in 1/mm where the reference is in HU, else None.
    """

    data: Tensor
    operator: XRayTransform
    quantity: Literal["line_integral", "counts"]
    reference: Tensor
    mu_water: float | None


def simulate_sinogram(
    image: Image,
    recipe: Recipe,
    *,
    counts: float | None = None,
    electronic_noise: float = 0.0,
    unit: Unit = "auto",
    mu_water: float = MU_WATER,
    generator: torch.Generator,
) -> SimulatedSinogram:
    r"""Measure a stack of slices with X-rays: line integrals y = A μ, or photons :math:`I \sim P(I_0 e^{-y}) + n`.

    Parameters
    ----------
    image
        Hounsfield units or attenuation in 1/mm, on square pixels whose size its geometry states.
    recipe
        Of a CT operator.
    counts
        I₀, photons that reach a bin without an object; None is no noise, and line integrals.
    electronic_noise
        Standard deviation of n, in photons.
    unit
        What the values are. "auto" takes Hounsfield units for the modality CT and for values below -100,
        which no attenuation has.
    mu_water
        Attenuation of water in 1/mm, which turns Hounsfield units into attenuation.
    generator
        CPU generator.
    """
    values = torch.from_numpy(image.magnitude)
    if unit == "auto":
        unit = "hu" if image.modality == "CT" or float(values.min()) < _CERTAINLY_HU else "mu"
    if unit == "mu" and float(values.min()) < 0:
        raise UsageError(
            f"attenuation cannot be negative, but the smallest value is {float(values.min()):.4g}: are these "
            "Hounsfield units (--unit hu)?"
        )
    mu = from_hounsfield(values, mu_water=mu_water) if unit == "hu" else values
    operator = recipe.draw((mu.shape[1], mu.shape[2]), generator, pixel_size=_pixel_size(image))
    if not isinstance(operator, XRayTransform):
        raise UsageError(f"recipe {recipe.name!r} is no CT acquisition; counts and units are for CT")
    with torch.no_grad():
        lines = torch.cat([operator(plane[None, None]) for plane in mu])
    return SimulatedSinogram(
        lines if counts is None else _photons(lines, counts, electronic_noise, generator),
        operator,
        "line_integral" if counts is None else "counts",
        to_hounsfield(mu, mu_water=mu_water) if unit == "hu" else mu,
        mu_water if unit == "hu" else None,
    )


def _photons(lines: Tensor, counts: float, electronic_noise: float, generator: torch.Generator) -> Tensor:
    slices = [photon_counts(y, counts=counts, electronic_noise=electronic_noise, generator=generator) for y in lines]
    return torch.stack(slices)


def _pixel_size(image: Image) -> float:
    columns, rows, _ = image.geometry.spacing
    if abs(columns - rows) > _SQUARE * rows:
        raise UsageError(
            f"CT is simulated on square pixels, these are {columns:.4g} x {rows:.4g} mm; resample the image first"
        )
    return rows
