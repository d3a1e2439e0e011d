"""Methods of reconstruction: measurements and a forward operator in, images out."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.reconstructors.adjoint import Adjoint
    from medrecon.reconstructors.base import Reconstructor
    from medrecon.reconstructors.cgls import Cgls
    from medrecon.reconstructors.fbp import FilteredBackProjection
    from medrecon.reconstructors.learned import (
        InvertibleDiffusion,
        LearnedReconstructor,
        ResidualUNet,
        VariationalNetwork,
        method_of_checkpoint,
    )
    from medrecon.reconstructors.registry import MethodInfo, available_methods, make_method, register_method
    from medrecon.reconstructors.sirt import Sirt
    from medrecon.reconstructors.tikhonov import Tikhonov
    from medrecon.reconstructors.tv import TotalVariation
    from medrecon.reconstructors.wavelet import L1Wavelet

_MODULES = {
    "Adjoint": "adjoint",
    "Cgls": "cgls",
    "FilteredBackProjection": "fbp",
    "InvertibleDiffusion": "learned",
    "L1Wavelet": "wavelet",
    "LearnedReconstructor": "learned",
    "MethodInfo": "registry",
    "Reconstructor": "base",
    "ResidualUNet": "learned",
    "Sirt": "sirt",
    "Tikhonov": "tikhonov",
    "TotalVariation": "tv",
    "VariationalNetwork": "learned",
    "available_methods": "registry",
    "make_method": "registry",
    "method_of_checkpoint": "learned",
    "register_method": "registry",
}

__all__ = [
    "Adjoint",
    "Cgls",
    "FilteredBackProjection",
    "InvertibleDiffusion",
    "L1Wavelet",
    "LearnedReconstructor",
    "MethodInfo",
    "Reconstructor",
    "ResidualUNet",
    "Sirt",
    "Tikhonov",
    "TotalVariation",
    "VariationalNetwork",
    "available_methods",
    "make_method",
    "method_of_checkpoint",
    "register_method",
]

__getattr__ = lazy_names(__name__, _MODULES)
