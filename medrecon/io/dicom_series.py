"""DICOM series in: one regular stack of slices, or an error that says why it is none.

Several programs average over gaps and rotations and return a plausible, wrong geometry. Here files
are grouped by series, orientation and matrix, ordered by their position along the normal (never by
InstanceNumber), and the steps between them must agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.dicom_preflight import is_dicom, outline
from medrecon.io.dicom_slice import PARAMETERS, DicomSlice, read_pixels, read_slice
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image

_FILES = 20_000
_POSITION, _RELATIVE = 0.01, 0.01  # mm, and share of the step: which irregularity is rounding
_DIRECTION = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class DicomStack:
    """Files of one series with one orientation and one matrix, in order of position."""

    slices: tuple[DicomSlice, ...]

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.slices[0].matrix

    def describe(self) -> str:
        """Say what the stack is, for a person who has to choose one."""
        axes = self.slices[0].directions
        plane = "no orientation"
        if axes is not None:
            plane = ("sagittal", "coronal", "axial")[int(np.abs(np.cross(axes[0], axes[1])).argmax())]
        number = self.slices[0].numbers("SeriesNumber", 1)
        name = f"series {int(number[0])}" if number is not None else "series without number"
        return f"{name}, {len(self.slices)} x {self.matrix[0]} x {self.matrix[1]}, {plane}, {_modality(self.slices[0])}"

    def geometry(self) -> Geometry:
        """Affine of the stack; InputError where the slices do not form one."""
        first = self.slices[0]
        axes, spacing = first.directions, first.spacing or (1.0, 1.0)
        if len({slice_.spacing for slice_ in self.slices}) > 1:
            raise InputError(f"{first.path.parent}: PixelSpacing differs between the slices; pass files of one volume")
        positions = [slice_.position for slice_ in self.slices]
        known = [position for position in positions if position is not None]
        if axes is None or len(known) < len(positions):
            if len(self.slices) > 1:
                raise InputError(
                    f"{first.path.parent}: {len(self.slices)} images without ImagePositionPatient or "
                    "ImageOrientationPatient have no order; pass a single file"
                )
            return Geometry.from_spacing((spacing[1], spacing[0], first.thickness or 1.0), (1, *self.matrix))
        normal = np.cross(axes[0], axes[1])
        step = normal * (first.thickness or 1.0) if len(known) == 1 else self._step(np.array(known), normal)
        affine = np.eye(4)
        affine[:3, :3] = _LPS_TO_RAS @ np.column_stack((axes[0] * spacing[1], axes[1] * spacing[0], step))
        affine[:3, 3] = _LPS_TO_RAS @ known[0]
        return Geometry(affine)

    def _step(self, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
        folder, along = self.slices[0].path.parent, positions @ normal
        gaps = np.diff(along)
        usual = float(np.median(gaps))
        tolerance = max(_POSITION, _RELATIVE * usual)
        at = int(np.abs(gaps - usual).argmax())
        if gaps.min() <= _POSITION:
            raise InputError(
                f"{folder}: {int((gaps <= _POSITION).sum()) + 1} or more images lie at the same position (several "
                "echoes, phases or repetitions?); put the files of one volume into a folder of their own"
            )
        if abs(gaps[at] - usual) > tolerance:
            raise InputError(
                f"{folder}: slices are not evenly spaced: a gap of {gaps[at]:.4g} mm between the positions "
                f"{along[at]:.4g} and {along[at + 1]:.4g} mm, where {usual:.4g} mm is usual; "
                "slices are missing or do not belong together: complete the series or pass a part of it"
            )
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        ideal = positions[0] + np.arange(len(positions))[:, None] * step
        if float(np.linalg.norm(positions - ideal, axis=1).max()) > tolerance:
            raise InputError(f"{folder}: the slices do not lie on a straight line; pass a part of the series")
        return np.asarray(step)


def find_series(path: Path, *, identifiers: bool = True, max_bytes: int | None = None) -> list[DicomStack]:
    """Sort a DICOM file, or all DICOM images right in a folder, into stacks; other files are passed over."""
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
        if len(entries) > _FILES:
            raise InputError(f"{path}: {len(entries)} files; at most {_FILES} are read, split the folder")
        # reports, plans and the DICOMDIR index have no pixels and are no slices
        files = [entry for entry in entries if is_dicom(entry) and outline(entry).has_pixels]
        if not files:
            raise InputError(
                f"{path}: no DICOM image among its {len(entries)} files (folders within it are not searched); "
                "pass the folder that holds the files of one series"
            )
    else:
        files = [path]
    stacks: dict[Any, list[DicomSlice]] = {}
    for file in files:
        image = read_slice(file, identifiers=identifiers, max_bytes=max_bytes)
        stacks.setdefault(_stack_key(image, list(stacks)), []).append(image)
    return [DicomStack(tuple(_ordered(slices))) for slices in stacks.values()]


def load_series(path: Path, *, key: str | None = None, max_bytes: int | None = None) -> Image:
    """Read a DICOM file or the one series of a folder; ``key`` ("1", "2", …) picks one of several stacks."""
    stacks = find_series(path, identifiers=False, max_bytes=max_bytes)
    listing = "; ".join(f"{number}: {stack.describe()}" for number, stack in enumerate(stacks, 1))
    if key is None and len(stacks) > 1:
        raise InputError(
            f"{path}: holds {len(stacks)} stacks, not one: {_differences(stacks)} differ ({listing}). "
            "Pick one by its number with --key, or pass a single file"
        )
    if key is not None and key not in {str(number) for number in range(1, len(stacks) + 1)}:
        raise InputError(f"{path}: no stack {key!r}; there is {listing}: pass its number with --key")
    stack = stacks[int(key or 1) - 1]
    geometry = stack.geometry()
    nbytes = 4 * len(stack.slices) * math.prod(stack.matrix)
    require(nbytes, resolve(max_bytes), path=path, what="the series")
    array = np.stack([read_pixels(slice_) for slice_ in stack.slices])
    header = stack.slices[0]
    parameters = {name: header.numbers(keyword, 1) for name, keyword in PARAMETERS.items()}
    notes = [] if geometry.oriented else ["the file states no position: axial orientation assumed"]
    if header.spacing is None:
        notes.append("the file states no pixel spacing: 1 mm assumed")
    return Image(
        array,
        geometry,
        _modality(header),
        {"source_format": "dicom", "source_slices": len(stack.slices), "notes": notes},
        {name: float(value[0]) for name, value in parameters.items() if value is not None},
    )


def _stack_key(image: DicomSlice, known: Sequence[Any]) -> Any:  # noqa: ANN401  (an opaque key)
    axes = image.directions
    for key in known:
        if key[:2] == (_uid(image), image.matrix) and (
            axes is key[2] is None
            or (axes is not None and key[2] is not None and np.abs(axes - np.array(key[2])).max() < _DIRECTION)
        ):
            return key
    return _uid(image), image.matrix, None if axes is None else tuple(map(tuple, axes.tolist()))


def _ordered(slices: list[DicomSlice]) -> list[DicomSlice]:
    axes = slices[0].directions
    if axes is None or any(slice_.position is None for slice_ in slices):
        return slices  # refused later, where there are several
    normal = np.cross(axes[0], axes[1])
    keyed = [(float(normal @ slice_.position), slice_) for slice_ in slices if slice_.position is not None]
    return [slice_ for _, slice_ in sorted(keyed, key=lambda pair: pair[0])]


def _uid(image: DicomSlice) -> str:
    return str(image.header.get("SeriesInstanceUID", ""))


def _differences(stacks: list[DicomStack]) -> str:
    first = [stack.slices[0] for stack in stacks]
    series, matrices = {_uid(slice_) for slice_ in first}, {stack.matrix for stack in stacks}
    named = (["series"] if len(series) > 1 else []) + (["matrices"] if len(matrices) > 1 else [])
    # whatever series and matrices do not account for is orientation
    pairs = {(_uid(slice_), slice_.matrix) for slice_ in first}
    return " and ".join(named + (["orientations"] if len(pairs) < len(stacks) else []))


def _modality(image: DicomSlice) -> str:
    text = str(image.header.get("Modality", ""))
    return text if text in ("MR", "CT") else "OT"
