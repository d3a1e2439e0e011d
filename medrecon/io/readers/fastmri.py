"""fastMRI's HDF5 files, knee and brain, training and test."""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.affine import read_affine
from medrecon.io.geometry import Geometry
from medrecon.io.hdf5 import Hdf5File, shown
from medrecon.io.mrd_header import Encoding, MrdHeader, parse_mrd_header
from medrecon.io.options import ReadOptions
from medrecon.io.scan import CartesianAcquisition, Scalar, Scan, SliceStack
from medrecon.io.source import Source

_HEADER = "ismrmrd_header"
_REFERENCES = ("reconstruction_esc", "reconstruction_rss")
_NAME = re.compile(r"[A-Za-z0-9_]{1,32}")
_NUMBERS = ("acceleration", "num_low_frequency")


class FastMRIReader:
    """Reader of the fastMRI layout: ``kspace`` (slices, [coils,] read-out, phase encoding) and what goes with it."""

    name = "fastmri"

    def recognises(self, source: Source) -> bool:
        """Whether there is a dataset ``kspace`` beside a header or a reconstruction."""
        if source.hdf5 is None:
            return False
        names = source.hdf5.datasets.keys() | source.hdf5.refused.keys()
        return "kspace" in names and bool(names & {_HEADER, *_REFERENCES})

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Describe the scan; slices are read when they are asked for."""
        if source.hdf5 is None:
            raise InputError(f"{source.path} is not an HDF5 file, expected one of fastMRI's")
        if options.key is not None and options.key.strip("/") != "kspace":
            held = ", ".join(shown(name) for name in list(source.hdf5.datasets)[:20])
            raise InputError(f"{source.path} has no dataset '{shown(options.key)}' (--key); found: {held}")
        file = _File(source.hdf5, *_shape(source.hdf5))
        notes: list[str] = []
        if options.axes is not None:
            notes.append("--axes was ignored: fastMRI files define their axes")
        header = None
        if _HEADER in file.hdf5.datasets or _HEADER in file.hdf5.refused:
            header = parse_mrd_header(file.hdf5.read_text(_HEADER), file.hdf5.path)
        else:
            notes.append(f"no {_HEADER} in the file: field of view, spacing and padding are unknown")
        encoding = header.encodings[0] if header is not None else None
        reference = _reference(file, notes)
        matrix = _matrix(file, encoding, reference, notes)
        mask = _mask(file, encoding, notes) if options.mask is None else None  # the user's takes its place
        return Scan(
            source=source.path,
            format=self.name,
            measurements=SliceStack(file.slices, (file.coils, file.rows, file.columns), file.kspace),
            acquisition=CartesianAcquisition(mask=mask, matrix=matrix),
            geometry=_geometry(file, encoding, matrix, notes),
            reference=reference,
            header=_parameters(file.hdf5, header),
            notes=tuple(notes),
        )


@dataclass(frozen=True)
class _File:
    """The file and the sizes of its k-space."""

    hdf5: Hdf5File
    slices: int
    coils: int
    rows: int
    columns: int
    single: bool

    def kspace(self, index: int) -> Tensor:
        """One slice (coils, H, W); single-coil files have no coil axis, the result does."""
        samples = self.hdf5.read("kspace", (index,)).astype(np.complex64, copy=False)
        return torch.from_numpy(samples[None] if self.single else samples)


def _shape(hdf5: Hdf5File) -> tuple[int, int, int, int, bool]:
    info = hdf5.info("kspace")
    if info.refused is not None:
        raise InputError(f"{hdf5.path}: 'kspace' {info.refused}; put its values into the file itself")
    if info.dtype is None or info.dtype.kind != "c" or len(info.shape) not in (3, 4) or 0 in info.shape:
        raise InputError(
            f"{hdf5.path}: 'kspace' has shape {info.shape} and type {info.dtype}, expected complex numbers "
            "(slices, read-out, phase encoding) or (slices, coils, read-out, phase encoding)"
        )
    slices, *coils, rows, columns = info.shape
    return slices, coils[0] if coils else 1, rows, columns, not coils


def _reference(file: _File, notes: list[str]) -> SliceStack | None:
    """Emulated single-coil image for single-coil data, root sum of squares for multi-coil data."""
    for name in _REFERENCES if file.single else _REFERENCES[1:]:
        info = file.hdf5.datasets.get(name)
        if info is None or info.dtype is None:
            continue
        fits = len(info.shape) == 3 and info.shape[0] == file.slices and info.dtype.kind in "fiu"
        if not fits or not (0 < info.shape[1] <= file.rows and 0 < info.shape[2] <= file.columns):
            notes.append(f"'{name}' was ignored: its shape {info.shape} does not fit the k-space")
            continue
        return SliceStack(file.slices, info.shape[1:], lambda index, name=name: _image(file.hdf5, name, index))  # type: ignore[misc]
    return None


def _image(hdf5: Hdf5File, name: str, index: int) -> Tensor:
    return torch.from_numpy(hdf5.read(name, (index,)).astype(np.float32, copy=False))


def _matrix(
    file: _File, encoding: Encoding | None, reference: SliceStack | None, notes: list[str]
) -> tuple[int, int] | None:
    """Size of the image: the reference's, or the header's by fastMRI's rule for narrow k-space."""
    if reference is not None:
        return reference.shape[0], reference.shape[1]
    if encoding is None:
        notes.append("the size of the reconstruction is unknown: the image keeps the read-out oversampling")
        return None
    height, width, _ = encoding.recon.matrix
    # Some FLAIR scans have fewer phase-encoding columns than the header's image: fastMRI crops them to a square.
    rows, columns = (height, width) if file.columns >= width else (file.columns, file.columns)
    rows = min(rows, file.rows)
    if (rows, columns) != (height, width):
        notes.append(f"the header asks for {height} x {width} pixels; the k-space allows {rows} x {columns}")
    return rows, columns


def _mask(file: _File, encoding: Encoding | None, notes: list[str]) -> Tensor | None:
    """Acquired columns (1, 1, W) as far as the file says; None where only the zeros of the data can tell."""
    window = _window(file, encoding, notes)
    declared = _declared_mask(file)
    if window is None and declared is None:
        notes.append("no sampling mask in the file: samples that are exactly zero count as not acquired")
        return None
    if window is None and declared is not None:
        return _not_empty(declared, file)
    # One slice shows whether the columns that the header calls padding really are.
    acquired = file.kspace(file.slices // 2).abs().amax(dim=(0, 1)) > 0
    if window is not None and bool((acquired & ~window).any()):
        notes.append("the header declares padded columns, but they hold data: the padding was ignored")
        window = None
    if declared is not None:
        return _not_empty(declared if window is None else declared & window, file)
    if window is not None and torch.equal(acquired, window):
        notes.append(f"{int((~window).sum())} padded columns count as not acquired; all others are sampled")
        return window[None, None]
    notes.append("no sampling mask in the file: samples that are exactly zero count as not acquired")
    return None


def _not_empty(mask: Tensor, file: _File) -> Tensor:
    if not mask.any():
        raise InputError(f"{file.hdf5.path}: 'mask' selects no acquired column; supply one with --mask")
    return mask[None, None]


def _window(file: _File, encoding: Encoding | None, notes: list[str]) -> Tensor | None:
    """Columns inside the acquired range, where the header says that some lie outside."""
    limit = encoding.limits.get("kspace_encoding_step_1") if encoding is not None else None
    if encoding is None or limit is None:
        return None
    left = encoding.encoded.matrix[1] // 2 - limit.center
    right = left + limit.maximum + 1
    if not 0 <= left < right <= file.columns:
        notes.append(f"the header's phase-encoding limits do not fit {file.columns} columns: ignored")
        return None
    if (left, right) == (0, file.columns):
        return None
    columns = torch.arange(file.columns)
    return (columns >= left) & (columns < right)


def _declared_mask(file: _File) -> Tensor | None:
    """Dataset ``mask`` of test files, bool (W,)."""
    info = file.hdf5.datasets.get("mask")
    if info is None:
        return None
    numbers = info.dtype is not None and info.dtype.kind in "biuf"
    if not numbers or math.prod(info.shape) != file.columns or file.columns not in info.shape:
        raise InputError(
            f"{file.hdf5.path}: 'mask' has shape {info.shape}, expected ({file.columns},): one entry a column"
        )
    return torch.from_numpy(file.hdf5.read("mask").reshape(-1) > 0)


def _geometry(file: _File, encoding: Encoding | None, matrix: tuple[int, int] | None, notes: list[str]) -> Geometry:
    """Return the true spacing; only files that medrecon simulated hold position and orientation."""
    known = read_affine(file.hdf5)
    if known is not None:
        return known
    height, width, depth = encoding.recon.spacing if encoding is not None else (0.0, 0.0, 0.0)
    if not (height and width and depth):
        notes.append("the header does not give all of the field of view: spacing of 1 mm assumed where it is missing")
    notes.append("the file holds no position and orientation: spacing is true, directions are those of an axial slice")
    rows, columns = matrix or (file.rows, file.columns)
    return Geometry.from_spacing((width or 1.0, height or 1.0, depth or 1.0), (file.slices, rows, columns))


def _parameters(hdf5: Hdf5File, header: MrdHeader | None) -> dict[str, Scalar]:
    """Allow-listed parameters; identifiers stay in the file."""
    found: dict[str, Scalar] = dict(header.header) if header is not None else {}
    attributes = hdf5.attributes.get("", {})
    acquisition = attributes.get("acquisition")
    if isinstance(acquisition, str) and _NAME.fullmatch(acquisition) and acquisition != "UNKNOWN":
        found["acquisition"] = acquisition
    for name in _NUMBERS:
        value = attributes.get(name)
        if isinstance(value, int | float) and 0 <= value <= 1e6:
            found[name] = value
    return found
