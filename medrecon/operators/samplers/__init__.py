"""Where randomness lives: undersampling masks and coil arrays, drawn from an explicit generator."""

from medrecon.operators.samplers.base import MaskSampler, effective_acceleration
from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.operators.samplers.fastmri import FastMRILines, LineDraw
from medrecon.operators.samplers.fastmri_patterns import (
    EquispacedFractionLines,
    EquispacedLines,
    MagicFractionLines,
    MagicLines,
    RandomLines,
)
from medrecon.operators.samplers.fixed import FixedMask
from medrecon.operators.samplers.poisson_disc import PoissonDisc
from medrecon.operators.samplers.radial import RadialSpokes
from medrecon.operators.samplers.registry import available_samplers, make_sampler
from medrecon.operators.samplers.variable_density import VariableDensityLines, VariableDensityPoints

__all__ = [
    "CoilArray",
    "EquispacedFractionLines",
    "EquispacedLines",
    "FastMRILines",
    "FixedMask",
    "LineDraw",
    "MagicFractionLines",
    "MagicLines",
    "MaskSampler",
    "PoissonDisc",
    "RadialSpokes",
    "RandomLines",
    "VariableDensityLines",
    "VariableDensityPoints",
    "available_samplers",
    "effective_acceleration",
    "make_sampler",
]
