"""Which of the projectors runs: compiled on the CPU, Triton on CUDA, plain torch where either is missing."""

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

Geometry = Literal["parallel", "fan", "pixel"]
Direction = Literal["project", "backproject"]

_TRITON = ("parallel", "fan")


def run(geometry: Geometry, direction: Direction, x: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401 (geometry)
    """Call ``direction`` of the module for that geometry and the device of ``x``."""
    module = import_module(module_name(geometry, x.device.type))
    function = getattr(module, direction)
    if module.__name__.endswith("_numba"):
        given = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
        return torch.from_numpy(function(x.numpy(), *given))
    result: Tensor = function(x, *arguments)
    return result


def module_name(geometry: Geometry, device: str) -> str:
    """Return the full name of the module that serves a type of device."""
    if device == "cpu" and _present("numba"):
        name = f"{geometry}_numba"
    elif device == "cuda" and geometry in _TRITON and _present("triton"):
        name = f"triton_{geometry}"
    else:
        name = f"{geometry}_torch"
    return f"medrecon.operators.ct.{name}"


@lru_cache(maxsize=2)
def _present(package: str) -> bool:
    """Whether a package is installed; torch brings Triton along where it is built for CUDA."""
    return find_spec(package) is not None
