"""What follows each step of the optimizer: the schedule, averaged weights."""

import copy
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from medrecon.models.base import ReconstructionModel


class WeightAverage:
    r"""Exponential moving average of a model's weights, :math:`\bar θ ← d \barθ + (1 - d) θ`.

    d rises from 0.1 to ``decay`` as (1 + n) / (10 + n), so that the untrained weights are soon forgotten. Buffers
    are copied.

    Parameters
    ----------
    model
        Whose weights.
    decay
        In [0, 1).
    """

    def __init__(self, model: ReconstructionModel, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: ReconstructionModel) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.model.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
        for kept, new in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


class AfterStep:
    """``after_step`` of :class:`~medrecon.pipelines.training.steps.TrainingStep`: schedule and averaged weights.

    Parameters
    ----------
    model
        That is trained, on its device.
    schedule
        Moved on by every step.
    ema
        Decay of the averaged weights; None for none.

    Attributes
    ----------
    average
        The averaged weights; None for none.
    judged
        The model that is validated and saved: the averaged one where there is one.
    """

    def __init__(self, model: ReconstructionModel, schedule: LRScheduler, ema: float | None) -> None:
        self._model = model
        self._schedule = schedule
        self.average = None if ema is None else WeightAverage(model, ema)
        self.judged = model if self.average is None else self.average.model

    def __call__(self) -> None:
        """Move on."""
        self._schedule.step()
        if self.average is not None:
            self.average.update(self._model)
