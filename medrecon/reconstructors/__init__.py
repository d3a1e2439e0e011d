"""Methods of reconstruction: measurements and a forward operator in, images out."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.reconstructors.adjoint import Adjoint
    from medrecon.reconstructors.base import Reconstructor
    from medrecon.reconstructors.cgls import Cgls
    from medrecon.reconstructors.fbp import FilteredBackProjection
    from medrecon.reconstructors.idm import InvertibleDiffusion
    from medrecon.reconstructors.registry import MethodInfo, available_methods, make_method, register_method
    from medrecon.reconstructors.sirt import Sirt
    from medrecon.reconstructors.tikhonov import Tikhonov
    from medrecon.reconstructors.tv import TotalVariation
    from medrecon.reconstructors.wavelet import L1Wavelet

_MODULES = {
    "Adjoint": "adjoint",
    "Cgls": "cgls",
    "FilteredBackProjection": "fbp",
    "InvertibleDiffusion": "idm",
    "L1Wavelet": "wavelet",
    "MethodInfo": "registry",
    "Reconstructor": "base",
    "Sirt": "sirt",
    "Tikhonov": "tikhonov",
    "TotalVariation": "tv",
    "available_methods": "registry",
    "make_method": "registry",
    "register_method": "registry",
}

__all__ = [
    "Adjoint",
    "Cgls",
    "FilteredBackProjection",
    "InvertibleDiffusion",
    "L1Wavelet",
    "MethodInfo",
    "Reconstructor",
    "Sirt",
    "Tikhonov",
    "TotalVariation",
    "available_methods",
    "make_method",
    "register_method",
]

__getattr__ = lazy_names(__name__, _MODULES)
