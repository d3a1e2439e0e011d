"""Recompute in the backward pass what the forward pass did not keep: surroundings, inputs, gradients."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from medrecon.models.rebinding import Call, refuse_running_statistics


class Surroundings(NamedTuple):
    """What the result of a layer depends on besides its inputs: random numbers and autocast.

    Taken before the layer runs, put back when it runs again.
    """

    device: torch.device
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    random: Tensor
    device_random: Tensor | None

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Return the present ones, for work on ``device``."""
        kinds = dict.fromkeys(("cpu", device.type))
        autocast = tuple(
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds if kind != "meta"
        )
        on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, autocast, torch.get_rng_state(), on_device)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Run the body in these surroundings with gradients on, and leave no trace of them."""
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            devices = [self.device] if self.device_random is not None else []
            stack.enter_context(torch.random.fork_rng(devices))
            torch.set_rng_state(self.random)
            if self.device_random is not None:
                torch.cuda.set_rng_state(self.device_random, self.device)
            for kind, enabled, dtype in self.autocast:
                # without the cache: it would hand out the casts of another pass's parameters
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False))
            yield


class Inputs:
    """The tensors that some calls depend on, each once, in the order in which an autograd function takes them.

    Tensors that are arguments travel through ``ctx.save_for_backward`` and are not kept here.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        found: dict[int, Tensor] = {}
        for call in calls:
            refuse_running_statistics(call)
            for tensor in call.tensors():
                found.setdefault(id(tensor), tensor)
        self.tensors = tuple(found.values())
        self._index = {key: index for index, key in enumerate(found)}
        self._calls = [self._emptied(call) for call in calls]

    def _emptied(self, call: Call) -> Call:
        slots = tuple(_Slot(self._index[id(part)]) if isinstance(part, Tensor) else part for part in call.args)
        return Call(call.function, slots)

    def released(self) -> Self:
        """Forget the tensors; :meth:`aliased` then takes those that autograd kept."""
        self.tensors = ()
        return self

    def aliased(self, aliases: Sequence[Tensor]) -> list[Call]:
        """Return the calls on aliases, one for each tensor."""
        replacements = {key: aliases[index] for key, index in self._index.items()}
        calls = []
        for call in self._calls:
            args = tuple(aliases[part.position] if isinstance(part, _Slot) else part for part in call.args)
            calls.append(Call(call.function, args).rebound(replacements))
        return calls


class _Slot(NamedTuple):
    position: int


def alias(tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    """Return leaves that share the storage of ``tensors``: gradients of the recomputation gather in their ``grad``.

    Because they gather there, in place, the gradients of a parameter that many steps share exist once.
    """
    return [tensor.detach().requires_grad_(wanted) for tensor, wanted in zip(tensors, needed, strict=True)]


def refuse_second_derivative() -> None:
    """Raise where somebody asks for the derivative of a gradient that was recomputed."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            'second derivatives (create_graph=True) do not pass through recomputed layers; set memory="none"'
        )


def pull_back(y: Tensor, gradient: Tensor, leaves: Sequence[Tensor]) -> None:
    """Add the gradients of ⟨y, gradient⟩ to the ``grad`` of those leaves that want them."""
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if y.requires_grad and wanted:
        torch.autograd.backward(y, gradient.to(y.dtype), inputs=wanted)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Inputs, call: Call, x: Tensor, *tensors: Tensor) -> Tensor:  # noqa: ANN401
        ctx.surroundings = Surroundings.of(x.device)
        ctx.inputs = inputs.released()
        ctx.save_for_backward(x, *tensors)
        return call(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:  # noqa: ANN401
        refuse_second_derivative()
        leaves = alias(ctx.saved_tensors, ctx.needs_input_grad[2:])
        (call,) = ctx.inputs.aliased(leaves[1:])
        with ctx.surroundings.restored():
            y = call(leaves[0])
        pull_back(y, gradients[0], leaves)
        return None, None, *(leaf.grad for leaf in leaves)


def recomputed(call: Call, x: Tensor) -> Tensor:
    """Return ``call(x)`` and keep nothing but its inputs: the backward pass runs it again.

    Gradients are returned to autograd for x, for every tensor argument and for every parameter and
    buffer that requires one; hooks on them see one gradient, and the module is not touched.
    """
    if not torch.is_grad_enabled():
        return call(x)
    inputs = Inputs([call])
    result: Tensor = _Recomputed.apply(inputs, call, x, *inputs.tensors)
    return result
