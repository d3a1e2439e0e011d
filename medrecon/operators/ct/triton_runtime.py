"""Triton where it is installed: the decorator of kernels, and what every launch needs.

Kernels are defined on any machine, so that their modules import on any machine; they run where
:func:`available` says so. ``TRITON_INTERPRET=1``, set before this module is imported, runs them on the CPU.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from medrecon.errors import OperatorError

try:
    import triton
    import triton.language as language
except ImportError:
    triton = language = None

LARGEST = 2**18
"""Bins, lines or pixels that a position can count: kernels keep 44 of 64 bits for the fraction."""


def jit(function: Callable[..., Any]) -> Any:  # noqa: ANN401 (Triton's own type, where there is one)
    """Turn a function into a kernel; without Triton nothing can call it."""
    return function if triton is None else triton.jit(function)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def available() -> bool:
    """Whether the kernels can run here: Triton and a CUDA device, or its interpreter."""
    return triton is not None and (interpreted() or torch.cuda.is_available())


def launching(x: Tensor) -> AbstractContextManager[Any]:
    """Return the context in which kernels are launched for ``x``: its device, which need not be the current one."""
    if triton is None:
        raise OperatorError(
            "the CUDA projectors need the package triton, which is not installed; install it (pip install triton), "
            "or move operator and data to the CPU"
        )
    if x.device.type != "cuda" and not interpreted():
        raise OperatorError(f"the CUDA projectors take tensors on a CUDA device, got {x.device}; use those for the CPU")
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def check_size(height: int, width: int) -> None:
    """Raise where positions in an image would be beyond what kernels count."""
    if max(height, width) > LARGEST // 4:
        raise OperatorError(
            f"the CUDA projectors take images of at most {LARGEST // 4} pixels a side, got {height} x {width}"
        )


def images_together(number: int, plane: int) -> int:
    """Return how many of so many images a program serves, 1, 2 or 4: they share the arithmetic of positions.

    Kernels address the images that a program serves, ``plane`` numbers each, by 32 bits.
    """
    together = 1 if number == 1 else 2 if number == 2 else 4
    while together > 1 and plane * together >= 2**31:
        together //= 2
    if plane >= 2**31 or number == 0:
        raise OperatorError(
            f"the CUDA projectors take images and sinograms of less than 2^31 numbers, and at least one; got {number} "
            f"of {plane}"
        )
    return together


def interleave(target: Tensor, source: Tensor) -> None:
    """Copy (N, ...) into (groups, ..., I), images of a group side by side: one load then reads all of them."""
    together = target.shape[-1]
    whole = source.shape[0] // together
    target[:whole].copy_(source[: whole * together].unflatten(0, (whole, together)).movedim(1, -1))
    rest = source.shape[0] - whole * together
    if rest:
        target[whole, ..., :rest].copy_(source[whole * together :].movedim(0, -1))


def groups(number: int, together: int) -> int:
    """Return how many groups of images there are."""
    return -(-number // together)
