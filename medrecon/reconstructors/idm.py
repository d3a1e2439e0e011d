"""The Invertible Diffusion Model as a method of reconstruction."""

from pathlib import Path

import torch
from torch import Tensor

from medrecon.errors import NumericalError, UsageError
from medrecon.io.digest import file_digest
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import unit_peak
from medrecon.operators.solvers import per_sample
from medrecon.reconstructors.base import Progress, Reconstructor, Setting
from medrecon.reconstructors.registry import register_method


@register_method("idm")
class InvertibleDiffusion(Reconstructor):
    """Invertible Diffusion Model: a few learned diffusion steps, each made consistent with the data.

    See :class:`medrecon.models.InvertibleDiffusionModel`. The result is in the units of the data,
    whatever they are; a checkpoint serves images like those that it was trained on.

    Parameters
    ----------
    checkpoint
        Folder with ``config.json`` and ``*.safetensors``, as ``save_pretrained`` writes it.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()
        if checkpoint is None:
            raise UsageError("idm: needs the folder of a trained model, give it with --checkpoint")
        self.checkpoint = str(checkpoint)
        from medrecon.models import InvertibleDiffusionModel
        from medrecon.models.files import WEIGHTS

        self.model = InvertibleDiffusionModel.load(Path(checkpoint))
        self._digest = file_digest(Path(checkpoint) / WEIGHTS)
        self.eval()

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:  # noqa: ARG002 (the same for all)
        """Return the name of the checkpoint and the hash of its weights."""
        return {"checkpoint": Path(self.checkpoint).resolve().name, "sha256": self._digest}

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,  # noqa: ARG002 (a slice is one call)
    ) -> Tensor:
        backprojected, unit = unit_peak(operator.adjoint(measurements))  # also says what is wrong with bad data
        x: Tensor = self.model(measurements / per_sample(unit, measurements), operator)
        if not bool(torch.isfinite(x.abs().amax())):
            raise NumericalError(f"idm: {self.checkpoint} gives NaN or Inf for these data")
        signal = backprojected.abs().flatten(1).amax(1) > 0  # a network makes something even of nothing
        return x * per_sample(unit * signal, x)
