"""Run a module on other tensors than its own, without touching it.

A layer that is recomputed in a backward pass must not run on the parameters themselves: hooks on them
would fire once more, and gradients would be written where the caller did not ask for them.
``torch.func.functional_call`` exchanges the parameters *in* the module for the time of the call, which
another thread that uses the same module then sees. Here the module tree is copied instead (the Python
objects, a few hundred at most, no tensor), and the copy holds the other tensors.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Call(NamedTuple):
    """A function with all its arguments but the first: ``call(x)`` is ``function(x, *args)``.

    Attributes
    ----------
    function
        A module, or a plain function.
    args
        What follows x: tensors, modules (an operator, a network) and anything else. Whatever a
        gradient is wanted for is a tensor here, or belongs to a module here; nothing is captured.
    """

    function: Callable[..., Tensor]
    args: tuple[Any, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``function(x, *args)``."""
        return self.function(x, *self.args)

    def modules(self) -> Iterator[nn.Module]:
        """Yield the modules of the call, without their children."""
        for part in (self.function, *self.args):
            if isinstance(part, nn.Module):
                yield part

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors among the arguments, then those of the modules that require gradients."""
        yield from (part for part in self.args if isinstance(part, Tensor))
        for module in self.modules():
            for part in module.modules():
                for tensor in (*part._parameters.values(), *part._buffers.values()):
                    if tensor is not None and tensor.requires_grad:
                        yield tensor

    def rebound(self, replacements: Mapping[int, Tensor]) -> "Call":
        """Return the same call on other tensors, given by the ``id`` of those that they replace."""
        memo: dict[int, nn.Module] = {}

        def other(part: Any) -> Any:  # noqa: ANN401 (whatever the arguments are)
            if isinstance(part, nn.Module):
                return rebound(part, replacements, memo)
            return replacements.get(id(part), part) if isinstance(part, Tensor) else part

        return Call(other(self.function), tuple(other(part) for part in self.args))


def rebound(module: nn.Module, replacements: Mapping[int, Tensor], memo: dict[int, nn.Module]) -> nn.Module:
    """Return a shallow copy of a module tree with other tensors, given by the ``id`` of those that they replace.

    Shared children stay shared (``memo``), compiled ones stay compiled.
    """
    known = memo.get(id(module))
    if known is not None:
        return known
    copy = object.__new__(type(module))
    memo[id(module)] = copy
    copy.__dict__.update(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        own = module.__dict__[kind]
        copy.__dict__[kind] = {name: replacements.get(id(tensor), tensor) for name, tensor in own.items()}
    copy.__dict__["_modules"] = {
        name: child if child is None else rebound(child, replacements, memo) for name, child in module._modules.items()
    }
    _keep_compiled(copy)
    return copy


def _keep_compiled(copy: Any) -> None:  # noqa: ANN401 (a module with the private parts of torch.compile)
    """Point the compiled entry of a copied module to the copy; torch finds the code it compiled for the original."""
    if "_orig_mod" in copy.__dict__["_modules"]:  # torch.compile(module)
        copy.__dict__["forward"] = copy.dynamo_ctx(copy._orig_mod.__call__)
    entry = copy.__dict__.get("_compiled_call_impl")
    if entry is not None:  # module.compile()
        compiler = inspect.getclosurevars(entry).nonlocals.get("self")
        copy.__dict__["_compiled_call_impl"] = compiler(copy._call_impl) if callable(compiler) else None


def refuse_running_statistics(call: Call) -> None:
    """Raise for a module that changes in its forward pass: run twice, it would change twice."""
    for module in call.modules():
        for part in module.modules():
            if isinstance(part, _BatchNorm) and part.training and part.track_running_stats:
                raise TypeError(
                    f"{type(part).__name__} updates its running statistics in every forward pass, and layers that are "
                    'recomputed run twice; use GroupNorm, put it into eval mode, or set memory="none"'
                )
