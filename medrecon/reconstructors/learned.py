"""Trained models as methods of reconstruction."""

from pathlib import Path
from typing import ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.io.digest import file_digest
from medrecon.models.shipped import shipped_models
from medrecon.operators.base import LinearOperator
from medrecon.operators.coils import MapMethod
from medrecon.operators.scaling import unit_peak
from medrecon.operators.solvers import per_sample
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Reconstructor, Setting
from medrecon.reconstructors.registry import register_method


class Preparation(NamedTuple):
    """How data have to be prepared for a trained model.

    Attributes
    ----------
    method
        Its name among the methods.
    maps
        How coil sensitivities were estimated in training.
    crop_readout
        Whether read-out oversampling was removed.
    """

    method: str
    maps: MapMethod = "espirit"
    crop_readout: bool = False


def preparation(checkpoint: Path | str) -> Preparation:
    """Return how data have to be prepared for the model of a folder, as far as ``medrecon train`` has noted it there.

    Raises
    ------
    InputError
        For a folder that holds no trained model.
    """
    from medrecon.models.files import training_details

    details = training_details(Path(checkpoint)) or {}
    noted = details.get("reconstruction") or {}
    maps = noted.get("maps", "espirit")
    if maps not in get_args(MapMethod):
        raise InputError(f"{checkpoint}: was trained with maps {maps!r}, expected {', '.join(get_args(MapMethod))}")
    return Preparation(method_of_checkpoint(checkpoint), maps, bool(noted.get("remove_oversampling", False)))


class LearnedReconstructor(Reconstructor):
    """A trained :class:`~medrecon.models.ReconstructionModel` that keeps the promises of every method.

    The result is in the units of the data, whatever they are; a checkpoint serves images like those that
    it was trained on. A subclass needs no more than a docstring and ``@register_method`` with the name
    that its model has in :func:`~medrecon.models.register_model`.

    Parameters
    ----------
    checkpoint
        Folder with ``config.json`` and ``*.safetensors``, as ``save`` and ``save_pretrained`` write it, or
        that of a training run, which holds one under ``model``, or the name of one of
        :func:`~medrecon.models.shipped.shipped_models`.

    Raises
    ------
    UsageError
        Without a checkpoint, or for one of another model.
    InputError
        For a folder that holds no whole model.
    """

    model_name: ClassVar[str | None] = None
    """Of the models that serve this method, where that is another than its own."""

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()
        name = self.registered_name
        if checkpoint is None:
            names = f" (or {', '.join(shipped_models())})" if shipped_models() else ""
            raise UsageError(f"{name}: needs the folder of a trained model{names}, give it with --checkpoint")
        self.checkpoint = str(checkpoint)
        from medrecon.models.files import WEIGHTS, model_folder
        from medrecon.models.registry import load_trained, trained_class

        found = trained_class(checkpoint)
        wanted = self.model_name or name
        if found.registered_name != wanted:
            raise UsageError(
                f"{name}: {checkpoint} holds a {found.__name__}, expected the model {wanted!r}; use "
                f"--method {found.registered_name}"
            )
        self.model = load_trained(checkpoint)
        self._digest = file_digest(model_folder(Path(checkpoint)) / WEIGHTS)
        self.eval()

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:  # noqa: ARG002 (the same for all)
        """Return the name of the checkpoint and the hash of its weights."""
        return {"checkpoint": Path(self.checkpoint).resolve().name, "sha256": self._digest}

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        del generator  # nothing is random
        from medrecon.models.network_calls import each_network_call

        calls, total = 0, self.model.network_calls

        def report() -> None:
            nonlocal calls
            calls += 1
            if progress is not None and calls <= total:  # a model of another package may not know its number
                progress(calls, total)

        y, unit = self._normalised(measurements, operator)
        with each_network_call(self.model, report):
            return self._in_units(self.model(y, operator), unit)

    def _normalised(self, measurements: Tensor, operator: LinearOperator) -> tuple[Tensor, Tensor]:
        """Return measurements around 1 and their unit (B,), 0 for those without a signal."""
        backprojected, unit = unit_peak(operator.adjoint(measurements))  # also says what is wrong with bad data
        if self.model.settings.intensity is not None:  # it knows one unit only
            unit = torch.ones_like(unit)
        signal = backprojected.abs().flatten(1).amax(1) > 0  # a network makes something even of nothing
        return measurements / per_sample(unit, measurements), unit * signal

    def _in_units(self, x: Tensor, unit: Tensor) -> Tensor:
        """Return images of the network in units of the data."""
        if not bool(torch.isfinite(x.abs().amax())):
            raise NumericalError(f"{self.registered_name}: {self.checkpoint} gives NaN or Inf for these data")
        return x * per_sample(unit, x)


@register_method("idm")
class InvertibleDiffusion(LearnedReconstructor):
    """Invertible Diffusion Model: a few learned diffusion steps, each made consistent with the data.

    See :class:`medrecon.models.InvertibleDiffusionModel`, and :class:`LearnedReconstructor` for the parameter.
    """


@register_method("unet")
class ResidualUNet(LearnedReconstructor):
    """U-Net baseline: a learned correction of the classical reconstruction.

    See :class:`medrecon.models.UNetBaseline`, and :class:`LearnedReconstructor` for the parameter.
    """


@register_method("varnet")
class VariationalNetwork(LearnedReconstructor):
    """End-to-end variational network: learned gradient descent, a network in each step.

    See :class:`medrecon.models.UnrolledNetwork`, and :class:`LearnedReconstructor` for the parameter.
    """


def method_of_checkpoint(folder: str | Path) -> str:
    """Return the name of the method that reconstructs with the model of a folder; its weights are not read.

    Raises
    ------
    InputError
        For a folder that holds no model, or an unknown one.
    """
    from medrecon.models.registry import trained_class

    found = trained_class(folder)
    if found.registered_name is None:
        raise InputError(f"{folder}: holds a {found.__name__}, which no method of reconstruction is registered for")
    return found.registered_name
