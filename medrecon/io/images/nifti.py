"""NIfTI in."""

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.writers.nifti import ASSUMED

_GZIP = b"\x1f\x8b"
_HEADER = 1 << 26  # bytes before the voxels: header and extensions
_TO_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
_FLAWS = (
    OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError,
    RuntimeError, MemoryError,
)  # fmt: skip


def is_nifti(path: Path, head: bytes) -> bool:
    """Tell by the first bytes, decompressed where need be."""
    if head.startswith(_GZIP):
        try:
            with gzip.open(path) as file:
                head = file.read(540)
        except (OSError, EOFError, zlib.error):
            return path.name.lower().endswith(".nii.gz")  # then loading it says what is wrong
    first = head[344:348] in (b"n+1\0", b"ni1\0")
    return first or head[4:8] in (b"n+2\0", b"ni2\0")


def load_nifti(path: Path, *, key: str | None = None, max_bytes: int | None = None) -> Image:
    """Read a single-file NIfTI-1 or -2; of a 4-D file the volume ``key`` (from 1), by default the first."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with path.open("rb") as raw, gzip.open(path) if raw.read(2) == _GZIP else path.open("rb") as file:
            head = file.read(540)
            kind = nibabel.Nifti2Image if head[4:8] in (b"n+2\0", b"ni2\0") else nibabel.Nifti1Image
            _check_size(path, kind, head, max_bytes)
            file.seek(0)
            # by stream, not by name: content decides, and a name without .gz is no obstacle
            nifti: Any = kind.from_stream(file)
            with np.errstate(all="ignore"):  # what does not fit becomes infinite and is reported as such
                return _image(path, nifti, key)
    except InputError:
        raise
    except (*_FLAWS, HeaderDataError, ImageFileError, WrapStructError) as error:
        raise InputError(
            f"{path}: a damaged or truncated NIfTI file ({type(error).__name__}); get a fresh copy of it"
        ) from error


def _check_size(path: Path, kind: Any, head: bytes, max_bytes: int | None) -> None:  # noqa: ANN401
    """Compare what the header declares with the budget, before any voxel is decompressed."""
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise InputError(f"{path}: a pair of .hdr and .img files; convert it to a single .nii file first")
    header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
    shape = tuple(int(length) for length in header.get_data_shape())
    dtype = header.get_data_dtype()
    if dtype.kind not in "biufc":
        raise InputError(f"{path}: its voxels are colours or structures ({dtype}); expected numbers")
    if not shape or min(shape) < 1:
        raise InputError(f"{path}: an image of shape {shape}; expected at least one voxel along each axis")
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _HEADER:
        raise InputError(f"{path}: its voxels are said to begin at byte {offset:.4g}; the header is damaged")
    # the file's voxels and our float32 or complex64 copy of them
    voxels = math.prod(shape[:3])
    need = voxels * (dtype.itemsize + (8 if dtype.kind == "c" else 4))
    require(need, resolve(max_bytes), path=path, what="the image")


def _image(path: Path, nifti: Any, key: str | None) -> Image:  # noqa: ANN401
    shape = tuple(int(length) for length in nifti.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    volumes = math.prod(shape[3:])
    notes = []
    if key is not None and (volumes == 1 or not key.isdecimal() or not 1 <= int(key) <= volumes):
        raise InputError(f"{path}: no volume {key!r}; it holds {volumes}: pass a number from 1 to {volumes} with --key")
    if volumes > 1 and key is None:
        notes.append(f"holds {volumes} volumes: the first is taken, choose with --key")
    index = np.unravel_index(int(key or 1) - 1, shape[3:], order="F") if shape[3:] else ()
    # slicing the proxy reads this volume alone; the trailing axes of length 1 come off by the reshape
    trailing = tuple(int(at) for at in index) + (0,) * (len(nifti.shape) - len(shape))
    volume = np.asarray(nifti.dataobj[(..., *trailing)] if len(nifti.shape) > 3 else nifti.dataobj)
    volume = volume.reshape((*shape, 1, 1)[:3])
    dtype = np.complex64 if np.iscomplexobj(volume) else np.float32
    array = np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=dtype)
    geometry, modality = _geometry(path, nifti, array.shape, notes), _modality(nifti)
    return Image(array, geometry, modality, {"source_format": "nifti", "notes": notes})


def _description(nifti: Any) -> str:  # noqa: ANN401
    return bytes(nifti.header["descrip"]).rstrip(b"\0").decode("ascii", "replace")


def _modality(nifti: Any) -> str:  # noqa: ANN401
    """Only our own files say what they show."""
    words = _description(nifti).replace(",", " ").split()
    return words[2] if words[:1] == ["medrecon"] and len(words) > 2 and words[2] in ("MR", "CT") else "OT"


def _geometry(path: Path, nifti: Any, shape: tuple[int, ...], notes: list[str]) -> Geometry:  # noqa: ANN401
    header = nifti.header
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    slices, rows, columns = shape
    try:
        if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
            x, y, z = (float(size) * scale for size in header["pixdim"][1:4])
            notes.append("the file states no orientation: axial assumed")
            return Geometry.from_spacing((abs(x), abs(y), abs(z) or 1.0), (slices, rows, columns))
        affine = np.array(nifti.affine, dtype=np.float64)
        affine[:3] *= scale
        return Geometry(affine, oriented=ASSUMED not in _description(nifti))
    except ValueError as error:
        raise InputError(f"{path}: its affine or voxel size is singular or not finite; repair the header") from error
