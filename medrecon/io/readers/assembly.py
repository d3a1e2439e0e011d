"""From an array with named axes to a Scan: order, centring, repeats, mask, 3-D."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io import budget
from medrecon.io.geometry import Geometry
from medrecon.io.hybrid import full_axis, to_hybrid
from medrecon.io.options import ReadOptions
from medrecon.io.readers.axes import arrange, dropped_sets, join_repeats
from medrecon.io.readers.companions import FittedMask, fit_mask, read_calibration, read_maps, read_mask
from medrecon.io.readers.finite import require_finite
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack


def not_complex(dtype: np.dtype[Any], path: Path) -> InputError:
    """Error for an array that can be no k-space."""
    return InputError(
        f"{path}: holds {dtype}, but k-space is complex; join real and imaginary part into one complex array."
        " If this is an image, 'medrecon simulate' makes k-space of it"
    )


def scan_from_array(
    array: NDArray[Any], axes: tuple[str, ...], path: Path, name: str, options: ReadOptions, notes: tuple[str, ...] = ()
) -> Scan:
    """Make a Scan of complex k-space whose axes are known; slices are read when they are asked for.

    Parameters
    ----------
    array
        K-space; may be mapped from the file.
    axes
        One name an axis, see :func:`medrecon.io.readers.axes.parse_axes`.
    path, name
        The file and the name of the reader.
    options
        Mask, maps, calibration and what to do with repeats.
    notes
        What the reader has to say already.
    """
    if array.dtype.kind != "c":
        raise not_complex(array.dtype, path)
    blocks = arrange(array, axes, str(path))
    volumetric = blocks.shape[2] > 1
    if volumetric and (options.calibration is not None or options.mask is not None):
        raise InputError(
            f"{path}: --mask and --calibration go with 2-D scans; of a 3-D scan (axis z) the mask is read off the zeros"
        )
    limit = budget.resolve(options.max_bytes)
    budget.require((blocks if volumetric else blocks[0]).size * 16, limit, path=path, what="k-space")
    raw = _Raw(blocks, options)
    remarks = [*notes, *_repeat_notes(array.shape, axes, blocks.shape[1], options)]
    corner = _find_centre(raw(len(blocks) // 2), remarks)
    build = _volume if volumetric else _slices
    measurements, mask = build(raw, corner, path, remarks)
    slices, (_, height, width) = len(measurements), measurements.shape
    calibration = read_calibration(options, blocks.shape[3], slices)
    remarks.append("the file holds no voxel size and position: 1 mm voxels without orientation are assumed")
    return Scan(
        source=path,
        format=name,
        measurements=measurements,
        acquisition=CartesianAcquisition(
            mask=None if mask is None else torch.from_numpy(np.ascontiguousarray(mask)),
            maps=read_maps(options, measurements.shape, slices),
            calibration=None if calibration is None else SliceStack.from_tensor(calibration),
        ),
        geometry=Geometry.from_spacing((1.0, 1.0, 1.0), (slices, height, width)),
        notes=tuple(remarks),
    )


_CLEAR = 4.0  # how far DC in the corner must stand out above the middle of k-space


@dataclass(frozen=True)
class _Raw:
    """Slices as stored, (z, coils, y, x), repeats joined."""

    blocks: NDArray[Any]
    options: ReadOptions

    def __call__(self, index: int) -> NDArray[np.complex64]:
        return np.asarray(join_repeats(self.blocks[index], self.options.repetitions), dtype=np.complex64)


def _repeat_notes(shape: tuple[int, ...], axes: tuple[str, ...], repeats: int, options: ReadOptions) -> Iterator[str]:
    if repeats > 1:
        yield f"{repeats} repeats: {'averaged' if options.repetitions == 'average' else 'the first one taken'}"
    if left := dropped_sets(shape, axes):
        yield f"only the first entry of the axis 'set' is read; {left} left out"


def _find_centre(kspace: NDArray[np.complex64], remarks: list[str]) -> bool:
    """Whether the strongest sample lies in the corner, as a plain FFT leaves it, far above those in the middle."""
    energy = np.nan_to_num(np.abs(kspace)).max(axis=1)
    energy = energy.reshape([length for length in energy.shape if length > 1] or [1])
    peak = np.unravel_index(int(energy.argmax()), energy.shape)
    places = [(int(at), length) for at, length in zip(peak, energy.shape, strict=True)]
    middle = energy[tuple(slice(n // 2 - max(1, n // 8), n // 2 + max(1, n // 8) + 1) for n in energy.shape)]
    if energy.max() < _CLEAR * middle.max() or not energy.any():
        return False
    if all(min(at, length - at) <= 1 for at, length in places):
        remarks.append("the zero frequency stood in the corner of k-space (a plain FFT's order); moved to the centre")
        return True
    where = ", ".join(f"{at} of {length}" for at, length in places)
    remarks.append(f"the strongest sample of k-space is not near its centre but at {where}; taken as it is")
    return False


def _slices(raw: _Raw, corner: bool, path: Path, remarks: list[str]) -> tuple[SliceStack, NDArray[np.bool_] | None]:
    count, _, _, coils, height, width = raw.blocks.shape
    source = raw.options.mask
    fitted: FittedMask | None = None
    if source is not None:
        fitted = fit_mask(read_mask(source, raw.options.max_bytes), height, width, source)
        if len(fitted.mask) not in {1, count}:
            raise InputError(f"{source}: a mask of {len(fitted.mask)} slices, but {path} has {count}")
        height, width = fitted.mask.shape[-2:]
        if fitted.rows is not None or fitted.columns is not None:
            remarks.append(f"the stored lines were put in the places that the mask gives them in {height}x{width}")
        elif (raw(count // 2) * ~fitted.mask[count // 2 % len(fitted.mask)]).any():
            remarks.append("samples that the mask leaves out were set to 0")
        if corner:
            remarks.append("the mask was moved to the centre together with the k-space")

    def read(index: int) -> Tensor:
        kspace = raw(index)[0]
        if fitted is not None:
            kspace = fitted.scatter(kspace) * fitted.mask[index % len(fitted.mask)]
        if corner:
            kspace = np.fft.fftshift(kspace, axes=(-2, -1))
        return torch.from_numpy(np.array(kspace, dtype=np.complex64, order="C"))

    mask = None if fitted is None else fitted.mask
    if mask is not None and corner:
        mask = np.fft.fftshift(mask, axes=(-2, -1))
    return SliceStack(count, (coils, height, width), read), mask


def _volume(raw: _Raw, corner: bool, path: Path, remarks: list[str]) -> tuple[SliceStack, NDArray[np.bool_] | None]:
    slabs = np.stack([raw(index) for index in range(len(raw.blocks))])
    measured = (slabs != 0).any(axis=2)  # before NaN is zeroed: a spoilt sample was measured
    slabs, notes = require_finite(slabs, raw.options.nonfinite, path, "k-space")
    remarks.extend(notes)
    if corner:
        slabs, measured = np.fft.fftshift(slabs, axes=(1, 3, 4)), np.fft.fftshift(measured, axes=(1, 2, 3))
    axis = full_axis(measured, (2, 3, 1))
    if axis is None:
        raise InputError(
            f"{path}: the 3-D scan is undersampled along z, y and x; a stack of 2-D problems needs one axis"
            " (the read-out) whose lines are complete"
        )
    name, position = {2: ("y", 2), 3: ("x", 3), 1: ("z", 0)}[axis]  # of (z, coil, y, x)
    hybrid = torch.cat([to_hybrid(torch.from_numpy(slab), position) for slab in slabs])
    if axis != 1:
        hybrid = hybrid.transpose(1, 2).contiguous()  # (read-out, z, coil, ·) to (read-out, coil, z, ·)
    pattern = measured.any(axis=axis)
    pattern = np.repeat(pattern, measured.shape[axis], axis=0) if len(slabs) > 1 else pattern
    remarks.append(
        f"3-D scan: inverse Fourier transform along the fully sampled axis {name}, then {len(hybrid)} 2-D slices"
    )
    return SliceStack.from_tensor(hybrid), pattern
