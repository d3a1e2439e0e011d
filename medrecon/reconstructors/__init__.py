"""Methods of reconstruction: measurements and a forward operator in, images out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medrecon.reconstructors.adjoint import Adjoint
    from medrecon.reconstructors.base import Reconstructor
    from medrecon.reconstructors.registry import MethodInfo, available_methods, make_method, register_method
    from medrecon.reconstructors.scaling import intensity_scale
    from medrecon.reconstructors.tikhonov import Tikhonov
    from medrecon.reconstructors.tv import TotalVariation
    from medrecon.reconstructors.wavelet import L1Wavelet

_MODULES = {
    "Adjoint": "adjoint",
    "L1Wavelet": "wavelet",
    "MethodInfo": "registry",
    "Reconstructor": "base",
    "Tikhonov": "tikhonov",
    "TotalVariation": "tv",
    "available_methods": "registry",
    "intensity_scale": "scaling",
    "make_method": "registry",
    "register_method": "registry",
}

__all__ = [
    "Adjoint",
    "L1Wavelet",
    "MethodInfo",
    "Reconstructor",
    "Tikhonov",
    "TotalVariation",
    "available_methods",
    "intensity_scale",
    "make_method",
    "register_method",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (PEP 562: torch is imported only when something is used)
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
