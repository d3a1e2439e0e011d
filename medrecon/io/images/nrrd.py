"""NRRD in, the format of 3D Slicer: a text header and, after an empty line, the voxels in the same file."""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_HEADER = 1 << 16
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    "float": "f4",
    "double": "f8",
}
# signs that lead from a space's axes to right, anterior, superior
_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
_NUMBERS = re.compile(r"\(([^()]*)\)")


def is_nrrd(head: bytes) -> bool:
    """Tell by the first bytes."""
    return _MAGIC.match(head) is not None


def load_nrrd(path: Path, *, max_bytes: int | None = None) -> Image:
    """Read a grey NRRD of two or three axes, raw or gzip, with the voxels in the same file.

    Raises
    ------
    InputError
        For anything else, and for damaged files.
    """
    with path.open("rb") as file:
        fields, offset = _header(path, file.read(_HEADER))
        sizes, dtype = _sizes(path, fields), _dtype(path, fields)
        count = math.prod(sizes)
        require(count * (dtype.itemsize + 4), resolve(max_bytes), path=path, what="the image")
        file.seek(offset)
        encoding = fields.get("encoding", "raw").lower()
        if encoding not in ("raw", "gzip", "gz"):
            raise InputError(f"{path}: NRRD encoding {encoding!r} is not read; save it as raw or gzip")
        try:
            with file if encoding == "raw" else gzip.open(file) as voxels:
                data = voxels.read(count * dtype.itemsize)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged NRRD voxels ({error}); get a fresh copy of it") from error
    if len(data) < count * dtype.itemsize:
        raise InputError(
            f"{path}: truncated, {len(data)} of {count * dtype.itemsize} bytes of voxels; get a fresh copy"
        )
    array = np.frombuffer(data, dtype).reshape(sizes[::-1]).astype(np.float32)
    array = array[None] if array.ndim == 2 else array
    geometry = _geometry(path, fields, array)
    notes = [] if geometry.oriented else ["the file states no orientation: axial assumed"]
    return Image(array, geometry, "OT", {"source_format": "nrrd", "notes": notes})


def _header(path: Path, start: bytes) -> tuple[dict[str, str], int]:
    """Return the fields, their names in lower case, and where the voxels begin."""
    end = re.search(rb"\r?\n\r?\n", start)
    if end is None:
        raise InputError(f"{path}: the NRRD header does not end within {_HEADER} bytes; get a fresh copy of it")
    fields = {}
    for line in start[: end.start()].decode("latin-1").splitlines()[1:]:
        name, found, value = line.partition(":")
        if found and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
    for name in ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise InputError(
                f"{path}: '{name}: {fields[name]}' says that the voxels lie elsewhere; save header and voxels in one "
                ".nrrd file"
            )
    return fields, end.end()


def _sizes(path: Path, fields: dict[str, str]) -> tuple[int, ...]:
    words = fields.get("sizes", "").split()
    if len(words) not in (2, 3) or not all(word.isdigit() and int(word) > 0 for word in words):
        raise InputError(
            f"{path}: expected an image of two or three axes, got the sizes {fields.get('sizes', 'none')!r}"
        )
    kinds = set(fields.get("kinds", "").lower().split()) - {"domain", "space", "???", "none"}
    if kinds:
        raise InputError(f"{path}: axes of the kind {', '.join(sorted(kinds))}; expected grey values in space")
    return tuple(map(int, words))


def _dtype(path: Path, fields: dict[str, str]) -> "np.dtype[np.generic]":
    code = _TYPES.get(fields.get("type", "").lower())
    if code is None:
        raise InputError(
            f"{path}: voxels of the type {fields.get('type', 'none')!r}; expected whole numbers of at most 32 bits, "
            "float or double"
        )
    return np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + code)


def _geometry(path: Path, fields: dict[str, str], array: NDArray[np.float32]) -> Geometry:
    """Return the geometry; with an orientation where a known space has directions for three axes."""
    signs = _SPACES.get(fields.get("space", "").lower())
    shape = (array.shape[0], array.shape[1], array.shape[2])
    try:
        directions = [_vector(text) for text in _NUMBERS.findall(fields.get("space directions", ""))]
        (origin,) = [_vector(text) for text in _NUMBERS.findall(fields.get("space origin", ""))] or [[0.0] * 3]
        if signs is not None and [len(part) for part in (*directions, origin)] == [3] * 4:
            affine = np.eye(4)
            affine[:3, :3] = np.diag(signs) @ np.array(directions).T
            affine[:3, 3] = np.array(signs) * origin
            return Geometry(affine)
        steps = [float(np.linalg.norm(part)) for part in directions]
        steps = steps or [float(word) for word in fields.get("spacings", "").split()]
        known = [step if math.isfinite(step) and step > 0 else 1.0 for step in steps]
        x, y, z = (*known, 1.0, 1.0, 1.0)[:3]
        return Geometry.from_spacing((x, y, z), shape)
    except ValueError as error:
        raise InputError(f"{path}: NRRD directions that make no grid ({error}); correct the header") from error


def _vector(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]
