"""How much memory a training step needs, counted on tensors without data."""

from typing import Literal

Memory = Literal["none", "checkpoint", "min", "reversible", "auto"]
"""See :class:`~medrecon.models.InvertibleDiffusionModel`."""


def choose_memory(model, initial, budget):
    return "none"
