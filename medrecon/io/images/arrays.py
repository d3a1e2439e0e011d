"""NumPy, MATLAB and HDF5 arrays as images."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.options import ReadOptions
from medrecon.io.scan import CartesianAcquisition, Scan

if TYPE_CHECKING:
    from medrecon.io.readers.containers import Entry
    from medrecon.io.source import Source

_HDF5 = b"\x89HDF\r\n\x1a\n"
_SMALL = 16  # a table may have a few columns; an image has more
# In this order: where a file holds both targets of fastMRI it is a single-coil one, whose own is _esc.
_RECONSTRUCTIONS = ("reconstruction", "reconstruction_esc", "reconstruction_rss")


def is_array_file(head: bytes) -> bool:
    """Tell by the first bytes: .npy, .npz, .mat or HDF5 (whose signature may stand behind a user block)."""
    hdf5 = any(head[offset : offset + len(_HDF5)] == _HDF5 for offset in (0, 512, 1024, 2048))
    return hdf5 or head.startswith((b"\x93NUMPY", b"PK\x03\x04", b"MATLAB"))


def load_array_image(path: Path, *, key: str | None = None, max_bytes: int | None = None) -> Image:
    """Read a 2-D array (rows, columns) or a 3-D one (slices, rows, columns), geometry where our own file has it."""
    from medrecon.io.readers.containers import open_arrays

    notes: list[str] = []
    with open_arrays(path, max_bytes=max_bytes) as file:
        entries = file.entries
        if file.kind == "h5" and key is None:
            key = _reconstruction(path, list(entries), notes)
        elif key is None and len(entries) > 1:
            key = _only_picture(entries, notes)
        own = file.kind == "npz" and key is None and {"array", "affine"} <= entries.keys()
        name, entry = file.choose("array" if own else key)
        if len(entry.shape) not in (2, 3) or 0 in entry.shape:
            raise InputError(
                f"{path}: the array {name or 'in it'} has shape {entry.shape}; expected (rows, columns) or "
                "(slices, rows, columns). Save the part that is the image, or name another array with --key"
            )
        # the array as stored, and our copy in single precision
        require(2 * entry.nbytes, resolve(max_bytes), path=path, what="the image")
        array = _single(entry.read())
        if own:
            return _own_npz(
                path, array, {name: entries[name].read() for name in ("affine", "oriented") if name in entries}
            )
        kind = file.kind
    if kind == "h5":
        return _hdf5_image(path, array, name, notes, max_bytes)
    notes.append("the file states no spacing or orientation: 1 mm and axial assumed")
    return _image(array, _unknown(array), "OT", kind, notes)


def _reconstruction(path: Path, names: list[str], notes: list[str]) -> str:
    found = [name for name in _RECONSTRUCTIONS if name in names]
    if not found:
        held = ", ".join(names[:20]) or "none"
        raise InputError(
            f"{path}: no image in it (expected {', '.join(_RECONSTRUCTIONS)}); numeric datasets: {held}. "
            "Name one with --key, or reconstruct its k-space first"
        )
    if len(found) > 1:
        notes.append(f"holds {' and '.join(found)}: {found[0]} is taken, choose with --key")
    return found[0]


def _only_picture(entries: "Mapping[str, Entry]", notes: list[str]) -> str | None:
    """Return the one array that can be an image, where others are lists and tables."""
    found = [name for name, entry in entries.items() if len(entry.shape) in (2, 3) and min(entry.shape[-2:]) >= _SMALL]
    if len(found) != 1 or {"array", "affine"} <= entries.keys():
        return None
    notes.append(f"of {len(entries)} arrays only {found[0]!r} can be an image and is taken; --key names another")
    return found[0]


def _single(array: NDArray[Any]) -> NDArray[Any]:
    dtype = np.complex64 if np.iscomplexobj(array) else np.float32
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported as such
        stack = np.array(array, dtype=dtype, order="C")
    return stack[None] if stack.ndim == 2 else stack


def _unknown(array: NDArray[Any]) -> Geometry:
    slices, rows, columns = array.shape
    return Geometry.from_spacing((1.0, 1.0, 1.0), (slices, rows, columns))


def _image(array: NDArray[Any], geometry: Geometry, modality: str, kind: str, notes: list[str]) -> Image:
    return Image(array, geometry, modality, {"source_format": kind, "notes": notes})


def _affine(path: Path, affine: object, oriented: bool) -> Geometry:
    try:
        return Geometry(np.asarray(affine, dtype=np.float64).reshape(4, 4), oriented)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: its affine is not an invertible 4x4 matrix; remove or repair it") from error


def _own_npz(path: Path, array: NDArray[Any], numbers: Mapping[str, NDArray[Any]]) -> Image:
    from medrecon.io.readers.containers import npz_text

    geometry = _affine(path, numbers["affine"], bool(np.all(numbers.get("oriented", True))))
    modality = npz_text(path, "modality")
    records: list[dict[str, Any]] = []
    for name in ("provenance", "header"):
        try:
            record = json.loads(npz_text(path, name) or "{}")
        except (ValueError, RecursionError):
            record = {}
        records.append(record if isinstance(record, dict) else {})
    header = {name: value for name, value in records[1].items() if isinstance(value, str | int | float | bool)}
    return Image(array, geometry, modality if modality in ("MR", "CT") else "OT", records[0], header)


def _hdf5_image(path: Path, array: NDArray[Any], name: str, notes: list[str], max_bytes: int | None) -> Image:
    from medrecon.io.source import Source

    with Source(path, max_bytes=max_bytes) as source:
        attributes = source.hdf5.attributes.get(name, {}) if source.hdf5 is not None else {}
        modality = str(attributes.get("modality", "MR" if name in _RECONSTRUCTIONS else "OT"))
        modality = modality if modality in ("MR", "CT") else "OT"
        if "affine" in attributes:
            geometry = _affine(path, attributes["affine"], bool(attributes.get("oriented", True)))
            return _image(array, geometry, modality, "h5", notes)
        scan = _raw_scan(source) if name in _RECONSTRUCTIONS else None
    grid = scan.acquisition.matrix if scan is not None and isinstance(scan.acquisition, CartesianAcquisition) else None
    if scan is not None and (grid == array.shape[1:] and scan.measurements.count == len(array)):
        image = _image(array, scan.geometry, modality, "h5", notes)
        return replace(image, header=dict(scan.header))
    notes.append("the dataset states no spacing or orientation: 1 mm and axial assumed")
    return _image(array, _unknown(array), modality, "h5", notes)


def _raw_scan(source: "Source") -> Scan | None:
    """Describe the scan that fastMRI's files hold beside their images: it knows where those lie."""
    from medrecon.io.readers.fastmri import FastMRIReader

    reader = FastMRIReader()
    try:
        return reader.read(source, ReadOptions(max_bytes=source.max_bytes)) if reader.recognises(source) else None
    except InputError:
        return None  # the image itself is sound; the note on its geometry says what is missing
