"""Networks and their training losses: the Invertible Diffusion Model and its parts."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.models.idm import InvertibleDiffusionModel, TrainingBatch

__all__ = ["InvertibleDiffusionModel", "TrainingBatch"]

__getattr__ = lazy_names(__name__, {"InvertibleDiffusionModel": "idm", "TrainingBatch": "idm"})
