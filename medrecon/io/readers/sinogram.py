"""Our own sinograms: HDF5, or NumPy arrays with a description, in the schema of :mod:`medrecon.io.sinogram.schema`.

In HDF5 the dataset ``sinogram`` carries the schema as attributes; beside it may stand ``angles`` (in the
``angle_unit``), ``white`` and ``dark`` (bins), (fields, bins) or (slices, fields, bins), and ``reference``
(slices, rows, columns). A .npz holds arrays of the same names and the schema as JSON in ``geometry``; a .npy or
.npz may have it in a file of the same name that ends in .yaml or .json instead.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io import budget
from medrecon.io.affine import read_affine
from medrecon.io.hdf5 import Hdf5File
from medrecon.io.options import ReadOptions
from medrecon.io.readers.containers import NPY_MAGIC, ZIP_MAGIC, npz_text, open_arrays
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.sinogram.assembly import RawSinogram, sinogram_scan
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.io.source import Source

_SIDECAR_BYTES = 1 << 22
_ARRAYS = ("sinogram", "angles", "white", "dark", "reference")


class SinogramReader:
    """Reader of what :func:`medrecon.io.write_sinogram` writes, and of arrays described in the same terms."""

    name = "sinogram"

    def recognises(self, source: Source) -> bool:
        """Whether there is a ``sinogram`` with a ``medrecon_ct``, or an array whose description has one."""
        if source.hdf5 is not None:
            return "sinogram" in source.hdf5.datasets and "medrecon_ct" in source.hdf5.attributes.get("sinogram", {})
        return source.head.startswith((NPY_MAGIC, ZIP_MAGIC)) and _description(source) is not None

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Describe the scan; of an HDF5 file the slices are read when they are asked for."""
        notes = ["--axes was ignored: the file defines its axes"] if options.axes is not None else []
        spacing = 1.0
        if source.hdf5 is not None:
            card: Mapping[str, Any] = source.hdf5.attributes["sinogram"]
            arrays = _hdf5_arrays(source.hdf5)
            affine = read_affine(source.hdf5)
            spacing = spacing if affine is None else affine.spacing[2]
            if affine is not None and affine.oriented:
                card = {**card, "image.affine": affine.affine.reshape(-1).tolist()}
        else:
            card = _description(source) or {}
            arrays = _numpy_arrays(source, options)
        where = f"{source.path.name} (geometry of the sinogram)"
        angles = arrays["angles"].all() if "angles" in arrays else None
        schema = SinogramSchema.from_mapping(card, where, angles=None if angles is None else angles.reshape(-1))
        stack = _slices(source.path, arrays["sinogram"], schema.axes)
        count, bins = len(stack), schema.operator.detector_count
        raw = RawSinogram(
            rows=stack,
            schema=schema,
            white=_field(source.path, arrays, "white", count, bins),
            dark=_field(source.path, arrays, "dark", count, bins),
            center_known="center_of_rotation" in card,
            slice_spacing=spacing,
        )
        reference = _reference(source.path, arrays.get("reference"), count)
        return sinogram_scan(source.path, self.name, raw, options, reference=reference, notes=tuple(notes))


class _Array:
    """An array of known shape, read in part."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[tuple[int | slice, ...]], NDArray[Any]]) -> None:
        self.shape = shape
        self._read = read

    def part(self, *selection: int | slice) -> Tensor:
        return torch.from_numpy(np.array(self._read(selection), dtype=np.float64))

    def all(self) -> Tensor:
        return self.part()


def _hdf5_arrays(hdf5: Hdf5File) -> dict[str, _Array]:
    found = {}
    for name in _ARRAYS:
        info = hdf5.datasets.get(name)
        if info is None:
            continue
        if info.refused is not None or info.dtype is None or info.dtype.kind not in "biuf" or 0 in info.shape:
            reason = info.refused or f"has shape {info.shape} and type {info.dtype}, expected real numbers"
            raise InputError(f"{hdf5.path}: '{name}' {reason}")
        found[name] = _Array(info.shape, lambda selection, name=name: hdf5.read(name, selection))  # type: ignore[misc]
    return found


def _numpy_arrays(source: Source, options: ReadOptions) -> dict[str, _Array]:
    found = {}
    with open_arrays(source.path) as file:
        for name, entry in file.entries.items():
            known = name or "sinogram"
            if known not in _ARRAYS:
                continue
            budget.require(entry.nbytes, budget.resolve(options.max_bytes), path=source.path, what=f"array {known!r}")
            array = np.asarray(entry.read())
            if array.dtype.kind not in "biuf" or not array.size:
                raise InputError(f"{source.path}: {known!r} is {array.dtype} {array.shape}, expected real numbers")
            found[known] = _Array(array.shape, lambda selection, array=array: array[selection])  # type: ignore[misc]
    if "sinogram" not in found:
        raise InputError(f"{source.path}: no array called 'sinogram'; found {', '.join(found) or 'none'}")
    return found


def _description(source: Source) -> dict[str, Any] | None:
    """Return the schema of an array file: its own ``geometry``, or a text file beside it; None where there is none."""
    path = source.path
    try:
        text = npz_text(path, "geometry") if source.head.startswith(ZIP_MAGIC) else None
    except InputError:
        return None
    if text is None:
        beside = (path.with_suffix(suffix) for suffix in (".yaml", ".yml", ".json"))
        found = next((file for file in beside if file.is_file() and file.stat().st_size <= _SIDECAR_BYTES), None)
        if found is None:
            return None
        text = found.read_text(encoding="utf-8", errors="replace")
        if "medrecon_ct" not in text:
            return None
        import yaml

        try:
            card = yaml.safe_load(text)  # YAML reads JSON, too
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(f"{found}: is not valid YAML ({str(error).partition(chr(10))[0]})") from error
    else:
        try:
            card = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: 'geometry' is not valid JSON ({error})") from error
    return card if isinstance(card, dict) and "medrecon_ct" in card else None


def _slices(path: Path, array: _Array, axes: tuple[str, ...]) -> SliceStack:
    """Return the sinograms (views, bins) of the slices, whatever the order of the axes."""
    shape = array.shape
    if len(shape) == 2 and len(axes) == 3:
        axes = tuple(axis for axis in axes if axis != "slice")
    if len(shape) != len(axes):
        raise InputError(f"{path}: 'sinogram' has shape {shape}, but data.axes are {', '.join(axes)}")
    turned = axes.index("det") < axes.index("view")
    inner = tuple(size for size, axis in zip(shape, axes, strict=True) if axis != "slice")
    if "slice" not in axes:
        return SliceStack(1, inner[::-1] if turned else inner, lambda _: array.all().T if turned else array.all())
    at = axes.index("slice")

    def read(index: int) -> Tensor:
        plane = array.part(*[slice(None)] * at, index)
        return plane.T if turned else plane

    return SliceStack(shape[at], inner[::-1] if turned else inner, read)


def _field(
    path: Path, arrays: Mapping[str, _Array], name: str, count: int, bins: int
) -> Callable[[int], Tensor | None]:
    """Return the field of a slice, by slice."""
    array = arrays.get(name)
    if array is None:
        return lambda _: None
    if len(array.shape) == 3 and array.shape[0] == count and array.shape[2] == bins:
        return lambda index: array.part(index)
    if len(array.shape) not in (1, 2) or array.shape[-1] != bins:
        raise InputError(
            f"{path}: '{name}' has shape {array.shape}, expected ({bins},), (fields, {bins}) or "
            f"({count}, fields, {bins})"
        )
    whole = array.all()
    return lambda _: whole


def _reference(path: Path, array: _Array | None, count: int) -> SliceStack | None:
    if array is None:
        return None
    if len(array.shape) != 3 or array.shape[0] != count:
        raise InputError(f"{path}: 'reference' has shape {array.shape}, expected ({count}, rows, columns)")
    return SliceStack(count, array.shape[1:], lambda index: array.part(index).float())
