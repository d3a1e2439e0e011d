"""Autograd for linear maps: the backward of A is A^H, of a linear solve another linear solve."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LinearMap = Callable[[Tensor], Tensor]


class LinearPair(torch.autograd.Function):
    """Apply one of a pair of mutually adjoint linear maps; differentiable any number of times.

    y = A x has the vector-Jacobian product A^H g, and that is the same function with the pair
    swapped, so the hooks of an operator need not be differentiable themselves (they may run numba,
    write in place or call a foreign library).
    """

    @staticmethod
    def forward(x: Tensor, apply: LinearMap, adjoint: LinearMap) -> Tensor:  # noqa: ARG004 (used by the context)
        """Return ``apply(x)``."""
        return apply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG004
        """Keep the pair, and nothing of the data: a linear map does not need its input again."""
        _, ctx.linear, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Apply the adjoint."""
        return LinearPair.apply(grad_outputs[0], ctx.adjoint, ctx.linear), None, None

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Tensor:  # noqa: ANN401
        """Apply the map itself: a linear map is its own derivative."""
        return LinearPair.apply(grad_inputs[0], ctx.linear, ctx.adjoint)


def apply_linear(x: Tensor, linear: LinearMap, adjoint: LinearMap) -> Tensor:
    """Return ``linear(x)`` with ``adjoint`` as its derivative; skips autograd where nobody asks for it."""
    if not torch.is_grad_enabled():
        return linear(x)
    return LinearPair.apply(x, linear, adjoint)
