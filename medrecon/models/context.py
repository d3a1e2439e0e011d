"""What the layers of the U-Net get besides their features, and how each of them is called."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from medrecon.models.rebinding import Call
from medrecon.models.replay import recomputed
from medrecon.models.reversible import Keep
from medrecon.models.transformer import TransformerLayer
from medrecon.operators.base import LinearOperator


class Context(NamedTuple):
    """The conditioning of one pass through the U-Net; an explicit argument all the way down.

    Attributes
    ----------
    operator
        A, with ‖A‖ <= 1.
    initial
        x_init as real channels, of the size of the U-Net's image.
    step
        Which branch of the injectors, t - 1 in step t.
    keep
        What is kept for the backward pass.
    """

    operator: LinearOperator
    initial: Tensor
    step: int
    keep: Keep = "graph"

    @property
    def sparing(self) -> bool:
        """Whether layers are recomputed."""
        return self.keep != "graph" and torch.is_grad_enabled()

    def call(self, layer: nn.Module, skip: Tensor | None = None) -> Call:
        """Return the call of a layer on features: injectors see the physics, some residual blocks a skip."""
        if isinstance(layer, nn.ModuleList):
            return Call(layer[self.step], (self.operator, self.initial))
        if isinstance(layer, TransformerLayer):
            return Call(layer, (self.sparing or not torch.is_grad_enabled(),))
        return Call(layer) if skip is None else Call(joined, (skip, layer))

    def run(self, call: Call, h: Tensor) -> Tensor:
        """Run a layer outside the reversible chains, recomputed where those are."""
        return recomputed(call, h) if self.sparing else call(h)


def joined(h: Tensor, skip: Tensor, layer: nn.Module) -> Tensor:
    """Run a layer on features and a skip connection, concatenated."""
    result: Tensor = layer(torch.cat([h, skip], dim=1))
    return result
