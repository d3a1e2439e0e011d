r"""The reversible wiring of the Invertible Diffusion Model, and its gradient from nothing but the last two states.

Functions :math:`f_0, f_1, …` are chained over pairs of states (Chen et al., IDM, TPAMI 2025; equations 1
and 7 in docs/idm.md):

.. math:: x_{n+1} = (1 - v_n) f_n(x_n) + v_n x_{n-1}

Written for the pair, (y₁, y₂) = ((1 - v) f(x₁) + v x₂, x₁). It is inverted without inverting f,

.. math:: x_{n-1} = (x_{n+1} - (1 - v_n) f_n(x_n)) / v_n

so the backward pass can rebuild every state from the last two. The error grows like ε / ∏ v, see
:func:`rebuildable`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.models.rebinding import Call
from medrecon.models.replay import Inputs, Surroundings, alias, pull_back, refuse_second_derivative
from medrecon.operators.certainty import certain

Keep = Literal["graph", "states", "states-together", "ends"]
"""What a chain keeps for its backward pass.

"graph": everything, plain autograd. "states": every state; each layer is recomputed by itself.
"states-together": the same in one function for the whole chain, so that parameters which several layers
share gather their gradients in one place. "ends": the last two states; the others are rebuilt.
"""

_SAFE = 0.4**11


def rebuildable(v: Tensor) -> bool:
    """Whether the states of a chain may be rebuilt: ∏ v >= 0.4^11, where gradients in float32 err by 5e-5."""
    return not certain(v.detach().double().prod() < _SAFE * (1 - 1e-6))


def mix(f: Tensor, before: Tensor, v: Tensor) -> Tensor:
    """Return (1 - v) f + v · before; v has shape (1,), so that a half-precision f is raised to the states' float32."""
    return (1 - v) * f + v * before


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        inputs: Inputs,
        calls: Sequence[Call],
        rebuild: bool,
        x1: Tensor,
        x2: Tensor,
        v: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        before, x = x2, x1
        states = [before]
        surroundings = []
        for call, weight in zip(calls, v.split(1), strict=True):
            states.append(x)
            surroundings.append(Surroundings.of(x.device))
            before, x = x, mix(call(x), before, weight)
            if rebuild:
                states.clear()
        y1, y2 = x, before.view_as(before)  # an input must not be an output itself
        ctx.inputs, ctx.surroundings, ctx.rebuild = inputs.released(), surroundings, rebuild
        ctx.save_for_backward(v, *tensors, *([y2, y1] if rebuild else states))
        ctx.length = len(tensors) + 1
        return y1, y2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:  # noqa: ANN401
        refuse_second_derivative()
        saved = list(ctx.saved_tensors)
        v, tensors, states = saved[0].split(1), saved[1 : ctx.length], saved[ctx.length :]
        leaves = alias(tensors, ctx.needs_input_grad[6:])
        calls = ctx.inputs.aliased(leaves)
        d1, d2 = gradients
        dv = torch.zeros_like(saved[0])
        after = states.pop() if ctx.rebuild else None  # x_{n+1}
        for n in reversed(range(len(calls))):
            x = states.pop().detach().requires_grad_()  # x_n
            with ctx.surroundings[n].restored():
                f = calls[n](x)
            with torch.no_grad():
                if after is not None:
                    before, after = (after - (1 - v[n]) * f) / v[n], x.detach()
                    states.append(before)
                else:
                    before = states[-1]  # x_{n-1}
                dv[n] = ((before - f) * d1).sum()
                pulled = (1 - v[n]) * d1
            pull_back(f, pulled, [x, *leaves])
            del f, before, pulled
            d1, d2 = (d2 if x.grad is None else d2 + x.grad), v[n] * d1
            del x
        return None, None, None, d1, d2, dv, *(leaf.grad for leaf in leaves)


def reversible_chain(
    calls: Sequence[Call], x1: Tensor, x2: Tensor, v: Tensor, *, keep: Keep = "graph"
) -> tuple[Tensor, Tensor]:
    """Run the pair (x1, x2) through a chain and return the last pair (x_N, x_{N-1}).

    Gradients are *returned* to autograd for x1, x2, v, every tensor argument of the calls and every
    parameter and buffer of their modules that requires one: ``torch.autograd.grad``, hooks,
    accumulation, gradient scaling and DistributedDataParallel see what they see without recomputation.

    Parameters
    ----------
    calls
        f_0 … f_{N-1}, each preserving the shape of x.
    x1, x2
        The first pair, float32 or float64.
    v
        (N,), each in (0, 1); ``keep="ends"`` wants :func:`rebuildable` ones, which the caller sees to.
    keep
        What is kept for the backward pass, see :data:`Keep`.
    """
    if not calls:
        return x1, x2
    if keep == "graph" or not torch.is_grad_enabled():
        for call, weight in zip(calls, v.split(1), strict=True):
            x1, x2 = mix(call(x1), x2, weight), x1
        return x1, x2
    if keep == "states":
        for n, call in enumerate(calls):
            x1, x2 = _apply([call], x1, x2, v[n : n + 1], rebuild=False)
        return x1, x2
    return _apply(calls, x1, x2, v, rebuild=keep == "ends")


def _apply(calls: Sequence[Call], x1: Tensor, x2: Tensor, v: Tensor, *, rebuild: bool) -> tuple[Tensor, Tensor]:
    inputs = Inputs(calls)
    y1, y2 = _Chain.apply(inputs, calls, rebuild, x1, x2, v, *inputs.tensors)
    return y1, y2
