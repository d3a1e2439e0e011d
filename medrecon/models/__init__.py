"""Networks and their training losses: the Invertible Diffusion Model, baselines, and their parts."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.models.base import ReconstructionModel
    from medrecon.models.baseline_unet import UNetBaseline
    from medrecon.models.idm import InvertibleDiffusionModel
    from medrecon.models.losses import Loss, image_loss, ssim_loss
    from medrecon.models.presets import preset
    from medrecon.models.published import read_published, to_published
    from medrecon.models.registry import available_models, build_model, load_trained, model_class, register_model
    from medrecon.models.stable_diffusion import from_stable_diffusion
    from medrecon.models.unrolled import UnrolledNetwork

_MODULES = {
    "InvertibleDiffusionModel": "idm",
    "Loss": "losses",
    "ReconstructionModel": "base",
    "UNetBaseline": "baseline_unet",
    "UnrolledNetwork": "unrolled",
    "available_models": "registry",
    "build_model": "registry",
    "from_stable_diffusion": "stable_diffusion",
    "image_loss": "losses",
    "load_trained": "registry",
    "model_class": "registry",
    "preset": "presets",
    "read_published": "published",
    "register_model": "registry",
    "ssim_loss": "losses",
    "to_published": "published",
}

__all__ = [
    "InvertibleDiffusionModel",
    "Loss",
    "ReconstructionModel",
    "UNetBaseline",
    "UnrolledNetwork",
    "available_models",
    "build_model",
    "from_stable_diffusion",
    "image_loss",
    "load_trained",
    "model_class",
    "preset",
    "read_published",
    "register_model",
    "ssim_loss",
    "to_published",
]

__getattr__ = lazy_names(__name__, _MODULES)
