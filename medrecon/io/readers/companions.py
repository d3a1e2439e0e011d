"""Files that accompany k-space: the sampling mask, calibration k-space, coil sensitivity maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.options import ReadOptions
from medrecon.io.readers.axes import ADVICE, arrange, join_repeats, parse_axes
from medrecon.io.readers.cfl import bart_axes, is_cfl
from medrecon.io.readers.containers import load_array, open_arrays

# The echo may peak a few samples off N//2 (gradient delays); farther off, the middle is not where it seems.
_ECHO_SHIFT = 4


@dataclass(frozen=True)
class FittedMask:
    """A sampling mask on the full grid, and where the stored lines belong in it.

    ``mask`` is (1 or slices, H, W); ``rows`` and ``columns`` are the places of the stored lines
    where the file holds the acquired ones only, else None.
    """

    mask: NDArray[np.bool_]
    rows: NDArray[np.intp] | None = None
    columns: NDArray[np.intp] | None = None

    def scatter(self, kspace: NDArray[Any]) -> NDArray[Any]:
        """Put stored lines of (…, h, w) in their places in (…, H, W); unmeasured samples become 0."""
        if self.rows is None and self.columns is None:
            return kspace
        full = np.zeros((*kspace.shape[:-2], *self.mask.shape[-2:]), kspace.dtype)
        if self.rows is not None:
            full[..., self.rows, :] = kspace
        else:
            full[..., self.columns] = kspace
        return full


def read_mask(path: Path, max_bytes: int | None = None) -> NDArray[np.bool_]:
    """Read a sampling mask: zeros and ones, (W,), (H, W) or (slices, H, W)."""
    mask = load_array(path, max_bytes=max_bytes)
    mask = mask.reshape([length for length in mask.shape if length != 1] or [1])
    if mask.ndim > 3:
        raise InputError(f"{path}: a mask is (W,), (H, W) or (slices, H, W), found shape {mask.shape}")
    if mask.dtype.kind == "c" and not np.any(mask.imag):  # BART masks are complex files
        mask = mask.real
    if mask.dtype.kind == "c" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: a mask holds only 0 (not measured) and 1 (measured), found other values")
    if not mask.any():
        raise InputError(f"{path}: the mask is 0 everywhere: nothing would have been measured")
    return np.asarray(mask != 0)


def fit_mask(mask: NDArray[np.bool_], height: int, width: int, path: Path) -> FittedMask:
    """Fit a mask to stored k-space of ``height`` rows and ``width`` columns.

    A mask of the same size applies as it is, one of (W,) to the columns. A larger one whose number
    of kept columns (or rows) is the stored number says where the stored lines belong.
    """
    stored = f"k-space of {height}x{width} (y, x)"
    if mask.ndim == 1:
        if mask.size == width:
            return FittedMask(np.broadcast_to(mask[None, None], (1, height, width)))
        kept = np.flatnonzero(mask)
        if mask.size > width and kept.size == width:
            return FittedMask(np.broadcast_to(mask[None, None], (1, height, mask.size)), columns=kept)
        if mask.size > height and kept.size == height:
            return FittedMask(np.broadcast_to(mask[None, :, None], (1, mask.size, width)), rows=kept)
        raise InputError(f"{path}: a mask of {mask.size} entries, {kept.size} of them kept, does not fit {stored}")
    rows, columns = mask.shape[-2:]
    stack = mask.reshape(-1, rows, columns)
    if (rows, columns) == (height, width):
        return FittedMask(stack)
    if len(stack) == 1 and rows == height and (stack == stack[:, :1]).all():
        return fit_mask(stack[0, 0], height, width, path)
    kept = np.flatnonzero(stack[0, :, 0])
    if len(stack) == 1 and columns == width and (stack == stack[:, :, :1]).all() and kept.size == height:
        return FittedMask(stack, rows=kept)
    raise InputError(
        f"{path}: a mask of shape {mask.shape} does not fit {stored}; expected that size, or whole lines of the"
        " full size of which as many are kept as the file stores"
    )


def companion(path: Path, what: str, options: ReadOptions, *, set_axis: bool = False) -> NDArray[Any]:
    """Read a companion file as (slice, repeat, z, coil, y, x), its axes named as those of the k-space.

    With ``set_axis`` BART's maps take the place of ``repeat``.
    """
    with open_arrays(path, max_bytes=options.max_bytes) as file:
        key = options.key if options.key in file.entries else None
    array = load_array(path, key, options.max_bytes)
    if array.dtype.kind != "c":
        raise InputError(f"{path}: {what} must be complex, found {array.dtype}")
    if is_cfl(path) and options.axes is None:
        dims = (*array.shape, *(1,) * (16 - array.ndim))
        sets = dims[4] if set_axis else 1
        axes = bart_axes((*dims[:4], *(dims[4] // sets,), *dims[5:]), path)
        if set_axis:
            axes = (*axes[:4], "repetition", *("_" if axis == "repetition" else axis for axis in axes[5:]))
        return arrange(array.reshape(dims, order="A"), axes, f"{path} ({what})")
    named = parse_axes(options.axes) if options.axes is not None else ()
    if len(named) != array.ndim:
        named = {2: ("y", "x"), 3: ("coil", "y", "x"), 4: ("slice", "coil", "y", "x")}.get(array.ndim, ())
        if set_axis and array.ndim == 5:
            named = ("slice", "repetition", "coil", "y", "x")
    if not named:
        raise InputError(f"{path}: {what} of shape {array.shape}: {ADVICE}")
    return arrange(array, named, f"{path} ({what})")


def read_calibration(options: ReadOptions, coils: int, slices: int) -> Tensor | None:
    """Read ``options.calibration`` as (slices, coils, h, w), without its empty outer lines.

    The zero frequency then lies at the middle of what is left. Where the samples contradict that
    (partial Fourier: one side is missing), the empty lines of this axis stay.

    Its axes are those of ``options.axes``; without (or with another number of axes) ``coil,y,x`` or
    ``slice,coil,y,x``.
    """
    path = options.calibration
    if path is None:
        return None
    block = companion(path, "calibration k-space", options)
    if block.shape[2] != 1:
        raise InputError(f"{path}: calibration k-space of a 3-D scan is not supported; leave --calibration out")
    kspace = np.stack([join_repeats(part, options.repetitions)[0] for part in block]).astype(np.complex64)
    if kspace.shape[1] != coils:
        raise InputError(f"{path}: calibration k-space of {kspace.shape[1]} coils, but the scan has {coils}; {ADVICE}")
    if len(kspace) not in {1, slices}:
        raise InputError(f"{path}: calibration k-space of {len(kspace)} slices, but the scan has {slices}")
    if not np.isfinite(kspace).all():
        raise InputError(f"{path}: calibration k-space has NaN or Inf samples")
    measured = (kspace != 0).any(axis=(0, 1))
    if not measured.any():
        raise InputError(f"{path}: calibration k-space is 0 everywhere")
    peak = np.unravel_index(np.square(np.abs(kspace), dtype=np.float64).sum(axis=(0, 1)).argmax(), measured.shape)
    rows = _without_empty_ends(measured.any(axis=1), int(peak[0]))
    columns = _without_empty_ends(measured.any(axis=0), int(peak[1]))
    kspace = kspace[..., rows, columns]
    return torch.from_numpy(np.ascontiguousarray(kspace)).expand(slices, -1, -1, -1)


def _without_empty_ends(measured: NDArray[np.bool_], peak: int) -> slice:
    """Lines from the first to the last that was measured, or all if the strongest sample speaks for their middle."""
    lines = np.flatnonzero(measured)
    first, end = int(lines[0]), int(lines[-1]) + 1
    off_centre = abs(peak - first - (end - first) // 2)
    if off_centre > _ECHO_SHIFT and off_centre > abs(peak - measured.size // 2):
        return slice(0, measured.size)
    return slice(first, end)


def read_maps(options: ReadOptions, shape: tuple[int, ...], slices: int) -> Tensor | None:
    """Read ``options.maps`` as (1 or slices, sets, coils, H, W) for k-space slices of ``shape`` (coils, H, W).

    Accepted are BART's maps, (coil, y, x), (slice, coil, y, x), (slice, set, coil, y, x), or the axes
    that ``options.axes`` names.
    """
    path = options.maps
    if path is None:
        return None
    block = companion(path, "coil sensitivity maps", options, set_axis=True)
    if block.shape[2] != 1 or block.shape[3:] != shape or len(block) not in {1, slices}:
        raise InputError(
            f"{path}: coil sensitivity maps of {len(block)} slices x {block.shape[3:]} (coils, y, x) do not fit"
            f" {slices} slices of k-space {shape}; {ADVICE}"
        )
    maps = np.ascontiguousarray(block[:, :, 0]).astype(np.complex64)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError(f"{path}: coil sensitivity maps are 0 everywhere or have NaN or Inf entries")
    return torch.from_numpy(maps)
