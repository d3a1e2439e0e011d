"""Linear forward operators, their solvers, samplers and the registry."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.operators.base import LinearOperator
    from medrecon.operators.batching import batch_operators
    from medrecon.operators.block_cs import BlockCompressedSensing
    from medrecon.operators.cartesian_mri import CartesianMRI
    from medrecon.operators.composition import vstack
    from medrecon.operators.ct.fan_beam import FanBeam2D
    from medrecon.operators.ct.parallel_beam import ParallelBeam2D
    from medrecon.operators.inpainting import Inpainting
    from medrecon.operators.registry import available_operators, operator_from_config, register_operator
    from medrecon.operators.scaling import intensity_scale

_MODULES = {
    "BlockCompressedSensing": "block_cs",
    "CartesianMRI": "cartesian_mri",
    "FanBeam2D": "ct.fan_beam",
    "Inpainting": "inpainting",
    "LinearOperator": "base",
    "ParallelBeam2D": "ct.parallel_beam",
    "available_operators": "registry",
    "batch_operators": "batching",
    "intensity_scale": "scaling",
    "operator_from_config": "registry",
    "register_operator": "registry",
    "vstack": "composition",
}

__all__ = [
    "BlockCompressedSensing",
    "CartesianMRI",
    "FanBeam2D",
    "Inpainting",
    "LinearOperator",
    "ParallelBeam2D",
    "available_operators",
    "batch_operators",
    "intensity_scale",
    "operator_from_config",
    "register_operator",
    "vstack",
]

__getattr__ = lazy_names(__name__, _MODULES)
