"""The views of a DICOM-CT-PD series: private elements of groups 7029 to 7041, little-endian single precision."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.budget import require
from medrecon.io.dicom_preflight import is_dicom, outline
from medrecon.io.dicom_slice import naming_flaws
from medrecon.operators.ct.rebinning import ConeBeamScan

if TYPE_CHECKING:
    from pydicom import Dataset

_ROWS, _COLUMNS = (0x7029, 0x1010), (0x7029, 0x1011)
_COLUMN_PITCH, _ROW_PITCH, _SHAPE = (0x7029, 0x1002), (0x7029, 0x1006), (0x7029, 0x100B)
_ANGLE, _Z, _ORBIT, _DISTANCE, _CENTRE = (
    (0x7031, 0x1001), (0x7031, 0x1002), (0x7031, 0x1003), (0x7031, 0x1031), (0x7031, 0x1033),
)  # fmt: skip
_SHIFT_ANGLE, _SHIFT_Z, _SHIFT_ORBIT, _SPOT = (0x7033, 0x100B), (0x7033, 0x100C), (0x7033, 0x100D), (0x7033, 0x100E)
_WATER = (0x7041, 0x1001)
_TAGS: list[Any] = [
    _ROWS, _COLUMNS, _COLUMN_PITCH, _ROW_PITCH, _SHAPE, _ANGLE, _Z, _ORBIT, _DISTANCE, _CENTRE, _SHIFT_ANGLE,
    _SHIFT_Z, _SHIFT_ORBIT, _SPOT, _WATER, "SeriesInstanceUID", "InstanceNumber", "Rows", "Columns",
    "RescaleSlope", "RescaleIntercept", "BitsAllocated", "PixelRepresentation",
]  # fmt: skip
_FILES = 200_000
_SAME = 1e-3


@dataclass(frozen=True)
class _View:
    """One file's header."""

    path: Path
    series: str
    number: int
    shape: tuple[int, int]
    pitches: tuple[float, float]
    kind: str
    angle: float
    z: float
    orbit: float
    distance: float
    centre: tuple[float, float]
    spot: str
    water: float | None
    slope: float
    intercept: float

    @property
    def scanner(self) -> tuple[object, ...]:
        """What all views of a scan have in common."""
        return (self.shape, self.kind, *(round(value, 3) for value in (*self.pitches, self.distance, *self.centre)))


@dataclass(frozen=True)
class ProjectionSeries:
    """All views of a series, in order, with the geometry of the scan."""

    scan: ConeBeamScan
    views: tuple[_View, ...] = field(repr=False)
    water: float | None
    notes: tuple[str, ...]
    max_bytes: int

    def view(self, index: int) -> Tensor:
        """Return the line integrals (rows, columns) of a view."""
        return _pixels(self.views[index], self.max_bytes)


def has_projection(path: Path) -> bool:
    """Tell whether a DICOM file has the private element with the number of detector rows."""
    try:
        outline(path)
        with naming_flaws(path, "the header"):
            data = _header(path, [_ROWS])
            return _ROWS in data
    except InputError:
        return False


def read_series(path: Path, max_bytes: int) -> ProjectionSeries:
    """Read the headers of all files of the series that ``path`` belongs to, from its folder."""
    first = _read_view(path)
    files = [file for file in sorted(path.parent.iterdir()) if file.is_file() and is_dicom(file)]
    if len(files) > _FILES:
        raise InputError(f"{path.parent}: {len(files)} files; a series of more than {_FILES} is not read")
    found = [_read_view(file) for file in files if file != path and has_projection(file)]
    views = sorted([first, *(view for view in found if view.series == first.series)], key=lambda view: view.number)
    numbers = [view.number for view in views]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path.parent}: two projections have the same InstanceNumber; is the series there twice?")
    odd = next((view for view in views if view.scanner != first.scanner), None)
    if odd is not None:
        raise InputError(f"{odd.path}: has another detector geometry than {path.name}; views of one scan have the same")
    notes = ["values are line integrals as published, taken as they are"]
    if first.spot not in ("", "FFSNONE"):
        notes.append(
            f"flying focal spot {first.spot}: its shift along z is taken into account, that in the plane is not"
        )
    if len(found) >= len(views):
        notes.append(f"{len(found) + 1 - len(views)} projections of other series in the folder were left out")
    scan = ConeBeamScan(
        angles=torch.from_numpy(np.unwrap([view.angle for view in views])),
        z=torch.tensor([view.z for view in views], dtype=torch.float64),
        source_origin=float(np.median([view.orbit for view in views])),
        source_detector=first.distance,
        rows=first.shape[0],
        columns=first.shape[1],
        row_pitch=first.pitches[1],
        column_pitch=first.pitches[0],
        central_row=first.centre[1] - 1,
        central_column=first.centre[0] - 1,
        arc=first.kind != "FLAT",
    )
    return ProjectionSeries(scan, tuple(views), first.water, tuple(notes), max_bytes)


def _header(path: Path, tags: list[Any]) -> "Dataset":
    from pydicom import dcmread

    return dcmread(path, stop_before_pixels=True, specific_tags=tags)


def _read_view(path: Path) -> _View:
    outline(path)
    with naming_flaws(path, "the header of the projection"):
        data = _header(path, _TAGS)
        rows, columns = _whole(path, data, _ROWS), _whole(path, data, _COLUMNS)
        centre = _numbers(path, data, _CENTRE, 2)
        shift_z = _numbers(path, data, _SHIFT_Z, 1)[0] if _SHIFT_Z in data else 0.0
        return _View(
            path=path,
            series=str(data.get("SeriesInstanceUID", "")),
            number=int(data.get("InstanceNumber") or 0),
            shape=(rows, columns),
            pitches=(_positive(path, data, _COLUMN_PITCH), _positive(path, data, _ROW_PITCH)),
            kind=_kind(path, data),
            angle=_numbers(path, data, _ANGLE, 1)[0],
            z=_numbers(path, data, _Z, 1)[0] + shift_z,
            orbit=_positive(path, data, _ORBIT),
            distance=_positive(path, data, _DISTANCE),
            centre=(centre[0], centre[1]),
            spot=_text(data, _SPOT),
            water=_numbers(path, data, _WATER, 1)[0] if _WATER in data else None,
            slope=float(data.get("RescaleSlope", 1) or 1),
            intercept=float(data.get("RescaleIntercept", 0) or 0),
        )


def _raw(data: "Dataset", tag: tuple[int, int]) -> Any:  # noqa: ANN401 (bytes or what pydicom made of them)
    return data[tag].value


def _numbers(path: Path, data: "Dataset", tag: tuple[int, int], count: int) -> list[float]:
    """Return numbers of a private element: little-endian floats in bytes (VR UN or OB), or numbers already."""
    name = f"({tag[0]:04x},{tag[1]:04x})"
    if tag not in data:
        raise InputError(f"{path}: the element {name} of DICOM-CT-PD is missing; expected the projections as published")
    value = _raw(data, tag)
    if isinstance(value, bytes):
        values = list(struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4]))
    else:
        values = [
            float(item) for item in (value if isinstance(value, list | tuple) or hasattr(value, "append") else [value])
        ]
    if len(values) < count or not np.isfinite(values[:count]).all():
        raise InputError(f"{path}: the element {name} holds {len(values)} usable numbers, expected {count}")
    return values[:count]


def _positive(path: Path, data: "Dataset", tag: tuple[int, int]) -> float:
    value = _numbers(path, data, tag, 1)[0]
    if not 0 < value < 1e5:
        raise InputError(f"{path}: the element ({tag[0]:04x},{tag[1]:04x}) is {value:.4g}, expected a length in mm")
    return value


def _whole(path: Path, data: "Dataset", tag: tuple[int, int]) -> int:
    """Return a count: 16-bit integers in bytes where there are two of them, else a number."""
    value = _raw(data, tag) if tag in data else None
    if isinstance(value, bytes) and len(value) == 2:
        number = float(int.from_bytes(value, "little"))
    else:
        number = _numbers(path, data, tag, 1)[0]
    if number != int(number) or not 1 <= number <= 65535:
        raise InputError(
            f"{path}: the element ({tag[0]:04x},{tag[1]:04x}) is {number:.4g}, expected a number of elements"
        )
    return int(number)


def _text(data: "Dataset", tag: tuple[int, int]) -> str:
    value = _raw(data, tag) if tag in data else ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return "".join(letter for letter in text if letter.isalnum())[:32].upper()


def _kind(path: Path, data: "Dataset") -> str:
    kind = _text(data, _SHAPE)
    if kind not in ("CYLINDRICAL", "SPHERICAL", "FLAT"):
        raise InputError(f"{path}: the detector shape is {kind!r}, expected CYLINDRICAL, SPHERICAL or FLAT")
    return kind


def _pixels(view: _View, max_bytes: int) -> Tensor:
    """Return the line integrals (rows, columns); they are stored column by column."""
    from pydicom import dcmread

    rows, columns = view.shape
    found = outline(view.path)
    expected = 2 * rows * columns
    if found.pixel_bytes is None or found.pixel_bytes < expected:
        raise InputError(
            f"{view.path}: {found.pixel_bytes or 'no'} bytes of uncompressed pixels for a detector of {rows} x "
            f"{columns}, expected {expected}; get a fresh copy of the file"
        )
    require(4 * expected, max_bytes, path=view.path, what="the projection")
    with naming_flaws(view.path, "the projection"):
        stored = np.frombuffer(dcmread(view.path).PixelData, "<u2", rows * columns)
    values = stored.reshape((columns, rows), order="F").astype(np.float32) * view.slope + view.intercept
    return torch.from_numpy(np.ascontiguousarray(values.T))
