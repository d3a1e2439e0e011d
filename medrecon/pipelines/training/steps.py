"""What the engine does with a batch: a step of training, a reconstruction to be judged."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medrecon.datasets.batch import TrainingBatch, centre_magnitude
from medrecon.errors import NumericalError
from medrecon.models.base import ReconstructionModel
from medrecon.models.losses import Loss
from medrecon.pipelines.training.processes import Processes

Precision = Literal["float32", "bfloat16"]


class TrainingLoss(nn.Module):
    """A model's training loss as a module's forward pass, which is what ``DistributedDataParallel`` hooks into.

    Parameters
    ----------
    model
        With a method ``training_loss(batch, loss)``.
    loss
        Its name.
    """

    def __init__(self, model: ReconstructionModel, loss: Loss = "l1") -> None:
        super().__init__()
        self.model = model
        self.loss: Loss = loss

    def forward(self, batch: TrainingBatch) -> Tensor:
        """Return the loss, a scalar."""
        return self.model.training_loss(batch, self.loss)


class TrainingStep:
    """``iteration_update`` of MONAI's ``SupervisedTrainer``: loss, gradients, and every few batches a step.

    Parameters
    ----------
    accumulate
        Batches a step; gradients are averaged over them.
    clip
        Largest norm of the gradient.
    precision
        "bfloat16" is autocast, on the CPU as on CUDA.
    processes
        Who must agree that the loss is finite.
    after_step
        Called after each step of the optimizer: schedule, averaged weights.
    """

    def __init__(
        self,
        *,
        accumulate: int = 1,
        clip: float | None = None,
        precision: Precision = "float32",
        processes: Processes | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self.accumulate = accumulate
        self.clip = clip
        self.precision = precision
        self.processes = processes or Processes()
        self.after_step = after_step
        self.stop_requested = False

    def __call__(self, engine: SupervisedTrainer, batch: TrainingBatch) -> dict[str, Any]:
        """Return ``loss`` (mean over all processes), ``gradient_norm`` (None between steps) and ``stop``.

        Raises
        ------
        NumericalError
            Where loss or gradient are not finite in any process; the weights are as they were before.
        """
        length = engine.state.epoch_length
        place = (engine.state.iteration - 1) % length  # within the epoch
        first = place - place % self.accumulate
        group = min(self.accumulate, length - first)
        last = place == first + group - 1
        network = engine.network.train()
        if place == first:
            engine.optimizer.zero_grad()
        together = not last and isinstance(network, DistributedDataParallel)
        with network.no_sync() if together else nullcontext():
            with autocast(engine.state.device, self.precision):
                loss: Tensor = network(batch.to(engine.state.device))
            (loss / group).backward()
        parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
        norm = None
        if last:
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip or float("inf"))
        value = float(loss.detach())
        finite = bool(torch.isfinite(loss.detach())) and (norm is None or bool(torch.isfinite(norm)))
        bad, stop, total = self.processes.total(not finite, self.stop_requested, value if finite else 0.0)
        if bad:
            raise NumericalError(_diverged(batch, value, norm, engine.state.iteration, here=not finite))
        if last:
            engine.optimizer.step()
            if self.after_step is not None:
                self.after_step()
        return {
            "loss": total / self.processes.world,
            "gradient_norm": None if norm is None else float(norm),
            "stop": bool(stop),
        }


class EvaluationStep:
    """``iteration_update`` of MONAI's ``SupervisedEvaluator``: magnitudes of reconstruction and reference.

    Parameters
    ----------
    precision
        As in training.
    """

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision = precision

    def __call__(self, engine: SupervisedEvaluator, batch: TrainingBatch | None) -> dict[str, Any] | None:
        """Return ``pred`` and ``label``, magnitudes (B, h, w), and ``batch``; None where nothing could be read."""
        if batch is None:
            return None
        batch = batch.to(engine.state.device)
        engine.network.eval()
        with torch.no_grad(), autocast(engine.state.device, self.precision):
            images = engine.inferer(batch.measurements, engine.network, batch.operator)
        label = batch.magnitude()
        pred = centre_magnitude(images, (label.shape[1], label.shape[2]))
        return {"pred": pred, "label": label, "batch": batch}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a network computes."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _diverged(batch: TrainingBatch, loss: float, norm: Tensor | None, iteration: int, *, here: bool) -> str:
    advice = "the last checkpoint is as it was; look at the file, lower training.learning_rate, or set training.clip"
    if not here:
        return f"iteration {iteration}: the loss of another process is not finite; {advice}"
    sources = "; ".join(map(str, batch.sources))
    return (
        f"iteration {iteration}: loss {loss:.4g}, gradient norm {'unknown' if norm is None else f'{float(norm):.4g}'}, "
        f"from {sources}; {advice}"
    )
