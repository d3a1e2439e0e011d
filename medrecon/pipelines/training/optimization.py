"""Optimizer and learning-rate schedule of a recipe."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medrecon.pipelines.training.recipe import TrainingPart

_LEAST = 0.02
_FALL = 0.1


def build_optimizer(parameters: Iterable[nn.Parameter], part: TrainingPart) -> Optimizer:
    """Return the optimizer; weights are decayed, single numbers and vectors (biases, norms, α, v) are not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": part.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if part.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=part.learning_rate)
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    return kinds[part.optimizer](groups, lr=part.learning_rate, betas=part.betas)


def build_schedule(optimizer: Optimizer, part: TrainingPart, steps: int) -> LambdaLR:
    """Return the schedule of a run of that many steps: a linear rise, then what ``part.schedule`` says."""

    def factor(step: int) -> float:
        return rate_factor(part, step, min(step / max(steps, 1), 1.0))

    return LambdaLR(optimizer, factor)


def rate_factor(part: TrainingPart, step: int, share: float) -> float:
    """Return what the learning rate is multiplied by at a step, from 0, when that share of the run is over."""
    rise = min(1.0, (step + 1) / part.warm_up) if part.warm_up else 1.0
    if part.schedule == "cosine":
        return rise * (_LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * share)))
    return rise * (_FALL if part.schedule == "step" and share >= 2 / 3 else 1.0)
