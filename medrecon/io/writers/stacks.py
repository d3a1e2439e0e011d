"""Stacks of slices into HDF5 files, one slice at a time."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.io.scan import SliceStack

if TYPE_CHECKING:
    import h5py


def as_stack(data: Tensor | SliceStack) -> SliceStack:
    """Return slices as a stack."""
    return SliceStack.from_tensor(data) if isinstance(data, Tensor) else data


def checked_reference(reference: Tensor | SliceStack | None, slices: int, who: str) -> SliceStack | None:
    """Return a reference (slices, h, w) as a stack, or raise in the name of ``who``."""
    if reference is None:
        return None
    stack = as_stack(reference)
    if len(stack) != slices or len(stack.shape) != 2:
        raise UsageError(f"{who}: the reference has shape {(len(stack), *stack.shape)}, expected ({slices}, h, w)")
    return stack


def fill(
    file: "h5py.File", name: str, stack: SliceStack, dtype: torch.dtype, *, drop_axis: bool = False
) -> tuple[float, float]:
    """Write slice after slice; return the largest magnitude and the sum of squares."""
    shape = stack.shape[1:] if drop_axis else stack.shape
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    dataset = file.create_dataset(name, (len(stack), *shape), kind, chunks=(1, *shape) if shape else None)
    peak = energy = 0.0
    for index in range(len(stack)):
        values = stack[index].detach().cpu().to(dtype).resolve_conj().reshape(shape)
        magnitude = values.abs().double()
        peak, energy = max(peak, float(magnitude.max())), energy + float(magnitude.square().sum())
        dataset[index] = values.numpy()
    return peak, energy
