"""Random masks whose density falls from the centre of k-space outwards, with an exact sample count."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.operators.samplers import checks
from medrecon.operators.samplers.base import centre, centre_count, plane
from medrecon.operators.samplers.density import (
    DENSITIES,
    Density,
    density_weights,
    normalised_radius,
    weighted_choice,
)


@dataclass(frozen=True)
class VariableDensityLines:
    """Random phase-encoding lines of variable density; exactly ``round(W / acceleration)`` of them.

    Parameters
    ----------
    acceleration
        Lines of the grid divided by lines sampled.
    center_fraction
        Fraction of the lines that is fully sampled around zero frequency.
    density, steepness
        See :func:`medrecon.operators.samplers.density.density_weights`; steepness 0 is uniform.
    """

    acceleration: float
    center_fraction: float = 0.04
    density: Density = "polynomial"
    steepness: float = 2.0

    def __post_init__(self) -> None:
        _check(self, dimensions=1)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask, bool ``(1, W)``."""
        return _draw(self, plane(shape)[1:], False, generator)[None]


@dataclass(frozen=True)
class VariableDensityPoints:
    """Random points of the plane with variable density; exactly ``round(H * W / acceleration)`` of them.

    Parameters
    ----------
    acceleration
        Positions of the whole rectangle divided by positions sampled.
    center_fraction
        Fraction of *each* axis that is fully sampled around zero frequency.
    density, steepness
        See :func:`medrecon.operators.samplers.density.density_weights`; steepness 0 is uniform.
    elliptical
        Leave the corners of k-space out.
    """

    acceleration: float
    center_fraction: float = 0.04
    density: Density = "polynomial"
    steepness: float = 4.0
    elliptical: bool = False

    def __post_init__(self) -> None:
        _check(self, dimensions=2)
        checks.flag(type(self).__name__, "elliptical", self.elliptical)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask, bool ``(H, W)``."""
        return _draw(self, plane(shape), self.elliptical, generator)


def _check(sampler: VariableDensityLines | VariableDensityPoints, dimensions: int) -> None:
    owner = type(sampler).__name__
    checks.real(owner, "acceleration", sampler.acceleration, 1)
    checks.real(owner, "center_fraction", sampler.center_fraction, 0, 1)
    checks.real(owner, "steepness", sampler.steepness, 0)
    checks.choice(owner, "density", sampler.density, DENSITIES)
    checks.feasible(owner, sampler.acceleration, sampler.center_fraction**dimensions)


def _draw(
    sampler: VariableDensityLines | VariableDensityPoints,
    shape: tuple[int, ...],
    elliptical: bool,
    generator: torch.Generator,
) -> Tensor:
    owner = type(sampler).__name__
    radius = normalised_radius(shape)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(centre(size, centre_count(owner, size, sampler.center_fraction)) for size in shape)] = True
    total = max(round(mask.numel() / sampler.acceleration), 1)
    fixed = int(mask.sum())
    if fixed > total:
        checks.feasible(owner, sampler.acceleration, fixed / mask.numel())
    weights = density_weights(radius, sampler.density, sampler.steepness)
    weights[mask] = 0
    if elliptical:
        weights[radius > 1] = 0
    return mask | weighted_choice(weights, total - fixed, generator)
