"""How much memory a training step needs: counted beforehand, on tensors without data."""

import json
import weakref
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medrecon.errors import OutOfMemoryError
from medrecon.io.budget import free_memory, human
from medrecon.operators.base import LinearOperator

if TYPE_CHECKING:
    from medrecon.models.idm import InvertibleDiffusionModel

Memory = Literal["none", "checkpoint", "min", "reversible", "auto"]
"""See :class:`~medrecon.models.InvertibleDiffusionModel`."""

_AUTOMATIC: tuple[Memory, ...] = ("none", "checkpoint", "min")
_MARGIN = 0.85  # of the free memory: allocators fragment, and kernels want workspace


class LivePeak(TorchDispatchMode):
    """Count the bytes of all tensors alive at the same time while the body runs, and their peak.

    Every storage counts once, from its first appearance until it is freed; that is what an ideal
    allocator would need. Works on fake tensors. The backward pass is seen when it is called inside.

    Parameters
    ----------
    ignore
        Tensors that exist already and shall not count, parameters for example.

    Attributes
    ----------
    live, peak
        Bytes now, and at most so far.

    Examples
    --------
    >>> import torch
    >>> with LivePeak() as memory:
    ...     x = torch.zeros(1000) + 1
    >>> memory.live, memory.peak
    (4000, 8000)
    """

    def __init__(self, ignore: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in ignore}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's protocol)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and count what is new in its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: Any) -> None:  # noqa: ANN401
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


class StepCost(NamedTuple):
    """Bytes of a training step with T = 1: what the forward pass keeps, the peak with the backward pass."""

    kept: int
    peak: int

    def at(self, steps: int, gradients: int) -> int:
        """Return the peak for T steps, which share the bytes of the gradients."""
        return self.peak + (steps - 1) * self.kept + (gradients if steps > 1 else 0)


class Identity(LinearOperator):
    """A = 1 on (C, H, W): the cheapest physics, to measure a network with."""

    pinv_kind = "exact"
    unitary = True

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        super().__init__(image_shape, image_shape)

    def _forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def norm_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones(1)


def step_cost(
    model: "InvertibleDiffusionModel", shape: tuple[int, ...], memory: Memory, device: torch.device | str = "cpu"
) -> StepCost:
    """Count the bytes of a training step with T = 1, under the present autocast; nothing is computed.

    Parameters, their gradients from before and the optimizer's state are not counted; new gradients are.

    Parameters
    ----------
    model
        Whose configuration is measured.
    shape
        Of the images as real channels, (B, C, H, W).
    memory
        What is kept for the backward pass.
    device
        Whose kernels are meant.
    """
    kind = torch.device(device).type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    config = {key: value for key, value in model.config.items() if not key.startswith("_")}
    if not isinstance(config["alphas"], int | float):
        config["alphas"] = config["alphas"][:1]
    model_class: Any = type(model)
    return _step_cost(model_class, json.dumps({**config, "steps": 1}), tuple(shape), memory, str(device), autocast)


@lru_cache(maxsize=64)
def _step_cost(
    cls: Any,  # noqa: ANN401 (mypy does not take a class for hashable)
    config: str,
    shape: tuple[int, ...],
    memory: Memory,
    device: str,
    autocast: torch.dtype | None,
) -> StepCost:
    kind = torch.device(device).type
    with (
        FakeTensorMode(),
        torch.device(device),
        torch.enable_grad(),
        torch.autocast(kind, dtype=autocast, enabled=autocast is not None, cache_enabled=False),
    ):
        model: Any = cls.from_config(json.loads(config))
        y = torch.empty(shape)
        with LivePeak(model.parameters()) as counted:
            loss = model.sample(y, Identity(shape[1:]), y.clone(), memory).abs().mean()
            kept = counted.live
            loss.backward()
    return StepCost(kept, counted.peak)


def choose_memory(model: "InvertibleDiffusionModel", initial: Tensor, budget: int | None = None) -> Memory:
    """Return the fastest way whose training step fits into the free memory of the device.

    Parameters
    ----------
    model
        Which model.
    initial
        The images it starts from, real channels (B, C, H, W), on the device.
    budget
        Bytes to stay below, instead of what is free.

    Raises
    ------
    OutOfMemoryError
        Where a budget is given that none of them stays below.
    """
    limit = _free(initial.device) * _MARGIN if budget is None else budget
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    needed: int = 0
    for memory in _AUTOMATIC:
        cost = step_cost(model, tuple(initial.shape), memory, initial.device)
        needed = cost.at(model.settings.steps, gradients)
        if needed <= limit:
            return memory
    if budget is None:
        return "min"  # an estimate, and the device may yet find room
    raise OutOfMemoryError(
        f"a training step on images {tuple(initial.shape)} needs {human(needed)} at least, the budget is "
        f"{human(budget)}; use smaller patches, a smaller batch or a smaller preset"
    )


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return free_memory()
