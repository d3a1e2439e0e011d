"""Linear forward operators, their solvers, samplers and the registry."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medrecon.operators.base import LinearOperator
    from medrecon.operators.block_cs import BlockCompressedSensing
    from medrecon.operators.cartesian_mri import CartesianMRI
    from medrecon.operators.composition import vstack
    from medrecon.operators.inpainting import Inpainting
    from medrecon.operators.registry import available_operators, operator_from_config, register_operator

_MODULES = {
    "BlockCompressedSensing": "block_cs",
    "CartesianMRI": "cartesian_mri",
    "Inpainting": "inpainting",
    "LinearOperator": "base",
    "available_operators": "registry",
    "operator_from_config": "registry",
    "register_operator": "registry",
    "vstack": "composition",
}

__all__ = [
    "BlockCompressedSensing",
    "CartesianMRI",
    "Inpainting",
    "LinearOperator",
    "available_operators",
    "operator_from_config",
    "register_operator",
    "vstack",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (PEP 562: torch is imported only when something is used)
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
