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
    package = "medrecon.operators.ct"
    if x.device.type == "cpu" and _present("numba"):
        compiled = getattr(import_module(f"{package}.{geometry}_numba"), direction)
        given = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
        return torch.from_numpy(compiled(x.numpy(), *given))
    kind = "triton" if geometry in _TRITON and x.device.type == "cuda" and _present("triton") else "torch"
    result: Tensor = getattr(import_module(f"{package}.{geometry}_{kind}"), direction)(x, *arguments)
    return result


@lru_cache(maxsize=2)
def _present(package: str) -> bool:
    """Whether a package is installed; torch brings Triton along where it is built for CUDA."""
    return find_spec(package) is not None
