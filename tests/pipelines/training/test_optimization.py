"""The optimizer that a recipe asks for."""

import pytest
from torch import nn

from medrecon.pipelines.training.optimization import build_optimizer
from medrecon.pipelines.training.recipe import TrainingPart


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_what_it_is_told(kind):
    part = TrainingPart(optimizer=kind, learning_rate=3e-4, betas=(0.8, 0.9), weight_decay=0.1)
    matrices, vectors = build_optimizer(nn.Linear(3, 2).parameters(), part).param_groups
    assert [group["betas"] for group in (matrices, vectors)] == [(0.8, 0.9)] * 2
    assert [group["lr"] for group in (matrices, vectors)] == [3e-4] * 2
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)


def test_rmsprop_has_no_betas():
    (group, _) = build_optimizer(nn.Linear(3, 2).parameters(), TrainingPart(optimizer="rmsprop")).param_groups
    assert "betas" not in group


def test_short_memory_of_squares_by_default():
    """Unrolled networks whose gradients grow while they learn are thrown off by a long one."""
    (group, _) = build_optimizer(nn.Linear(3, 2).parameters(), TrainingPart()).param_groups
    assert group["betas"] == (0.9, 0.95)
