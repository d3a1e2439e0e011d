"""Networks and their training losses: the Invertible Diffusion Model and its parts."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.models.idm import InvertibleDiffusionModel
    from medrecon.models.losses import ssim_loss
    from medrecon.models.presets import preset
    from medrecon.models.published import read_published, to_published
    from medrecon.models.stable_diffusion import from_stable_diffusion

_MODULES = {
    "InvertibleDiffusionModel": "idm",
    "from_stable_diffusion": "stable_diffusion",
    "preset": "presets",
    "read_published": "published",
    "ssim_loss": "losses",
    "to_published": "published",
}

__all__ = [
    "InvertibleDiffusionModel",
    "from_stable_diffusion",
    "preset",
    "read_published",
    "ssim_loss",
    "to_published",
]

__getattr__ = lazy_names(__name__, _MODULES)
