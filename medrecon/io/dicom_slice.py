"""One DICOM image: its header from an allow-list, its pixels in real-world values."""

import logging
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.dicom_preflight import DicomOutline, outline

if TYPE_CHECKING:
    from pydicom import Dataset

HeaderValue = str | int | float | list[str | int | float]

_DIRECTION = 1e-2
PARAMETERS = {
    "repetition_time": "RepetitionTime",
    "echo_time": "EchoTime",
    "inversion_time": "InversionTime",
    "flip_angle": "FlipAngle",
    "field_strength": "MagneticFieldStrength",
    "slice_thickness": "SliceThickness",
}
_DESCRIPTION = [
    "SpecificCharacterSet", "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RealWorldValueMappingSequence",
    *PARAMETERS.values(),
]  # fmt: skip
_IDENTIFIERS = [
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod", "BodyPartExamined", "Laterality",
    "PatientPosition", "FrameOfReferenceUID",
]  # fmt: skip
# What pydicom raises on files that are not what they claim to be.
_FLAWS = (
    OSError, KeyError, RuntimeError, AttributeError, OverflowError, ValueError, TypeError, IndexError, MemoryError,
    NotImplementedError, EOFError, struct.error,
)  # fmt: skip


@contextmanager
def naming_flaws(path: Path, what: str) -> Iterator[None]:
    """Re-raise whatever pydicom stumbles over as one InputError, without any content of the file.

    Its warnings and log messages quote values, which may identify a patient: they are held back.
    """
    from pydicom.config import disable_value_validation
    from pydicom.errors import BytesLengthException, InvalidDicomError

    logger = logging.getLogger("pydicom")
    logger.addFilter(_drop)
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (*_FLAWS, BytesLengthException, InvalidDicomError) as error:
        raise InputError(f"{path}: {what} cannot be read ({type(error).__name__}); get a fresh copy of it") from None
    finally:
        logger.removeFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False


@dataclass(frozen=True)
class DicomSlice:
    """One single-frame greyscale image.

    Parameters
    ----------
    path
        Its file.
    header
        Keyword to value of the allow-listed elements that are present, not empty and well-formed:
        text, number, or a list of either.
    slope, intercept
        What turns stored pixels into values.
    """

    path: Path
    header: Mapping[str, HeaderValue]
    slope: float
    intercept: float

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64] | None:
        """Return ``count`` finite numbers of an element; None where it is absent, empty or malformed."""
        try:
            values = np.atleast_1d(np.array(self.header.get(keyword), dtype=np.float64))
        except (TypeError, ValueError):
            return None
        return values if values.shape == (count,) and bool(np.isfinite(values).all()) else None

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (self.numbers(keyword, 1) for keyword in ("Rows", "Columns"))
        return (int(rows[0]), int(columns[0])) if rows is not None and columns is not None else (0, 0)

    @cached_property
    def directions(self) -> NDArray[np.float64] | None:
        """Unit vectors (2, 3), LPS, along which columns and rows are counted; None where unknown."""
        values = self.numbers("ImageOrientationPatient", 6)
        if values is None:
            return None
        axes = values.reshape(2, 3)
        lengths = np.linalg.norm(axes, axis=1)
        if np.abs(lengths - 1).max() > _DIRECTION or abs(float(axes[0] @ axes[1])) > _DIRECTION:
            raise InputError(
                f"{self.path}: ImageOrientationPatient is not a pair of perpendicular unit vectors; "
                "its geometry cannot be trusted, export the series anew"
            )
        return np.asarray(axes / lengths[:, None])

    @property
    def position(self) -> NDArray[np.float64] | None:
        """Centre of the first voxel in mm, LPS; None where unknown."""
        return self.numbers("ImagePositionPatient", 3)

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Distance in mm between rows and between columns, as DICOM orders them; None where unknown."""
        values = self.numbers("PixelSpacing", 2)
        return (float(values[0]), float(values[1])) if values is not None and values.min() > 0 else None

    @property
    def thickness(self) -> float | None:
        """SliceThickness in mm; None where unknown."""
        values = self.numbers("SliceThickness", 1)
        return float(values[0]) if values is not None and values[0] > 0 else None


def read_slice(path: Path, *, identifiers: bool = False, max_bytes: int | None = None) -> DicomSlice:
    """Read the header of one single-frame greyscale DICOM image; ``identifiers`` adds those of a template."""
    from pydicom import dcmread

    structure = outline(path)
    with naming_flaws(path, "its header"):
        tags: list[Any] = _DESCRIPTION + (_IDENTIFIERS if identifiers else [])
        data = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        header = {keyword: value for keyword in tags if (value := _plain(data, keyword)) is not None}
        slope, intercept = _real_world(data)
    image = DicomSlice(path, header, slope, intercept)
    _require_plain(image, structure)
    _require_size(image, structure, max_bytes)
    rescale = image.numbers("RescaleSlope", 1), image.numbers("RescaleIntercept", 1)
    if rescale[0] is not None and rescale[1] is not None and rescale[0][0] != 0:
        return replace(image, slope=float(rescale[0][0]), intercept=float(rescale[1][0]))
    return image


def _plain(data: "Dataset", keyword: str) -> HeaderValue | None:
    """Value of one element as a Python type; None where it is absent, empty or malformed."""
    try:
        value: Any = data.get(keyword)
    except _FLAWS:
        return None  # one odd element does not make an image unreadable
    if value is None or keyword.endswith("Sequence"):
        return None
    if hasattr(value, "__iter__") and not hasattr(value, "encode") and not hasattr(value, "components"):
        return [item if isinstance(item, int | float) else str(item) for item in value]
    return (value if isinstance(value, int | float) else str(value).strip()) or None


def _real_world(data: "Dataset") -> tuple[float, float]:
    """Return slope and intercept of the one linear real-world value mapping, if there is just one."""
    mappings = data.get("RealWorldValueMappingSequence") or []
    if len(mappings) == 1:
        values = [mappings[0].get(name) for name in ("RealWorldValueSlope", "RealWorldValueIntercept")]
        if all(isinstance(value, int | float) and np.isfinite(value) for value in values) and values[0]:
            return float(values[0]), float(values[1])
    return 1.0, 0.0


def read_pixels(image: DicomSlice) -> NDArray[np.float32]:
    """Return the pixels (rows, columns) after rescale, or after the one linear real-world mapping there is."""
    from pydicom import dcmread

    path = image.path
    with naming_flaws(path, "its pixel data"):
        tags: list[Any] = [*_DESCRIPTION, "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
        data = dcmread(path, specific_tags=tags)
        _require_decoder(path, data)
        try:
            stored = np.asarray(data.pixel_array)
        except RuntimeError as error:  # none of the decoders at hand could make sense of it
            raise _undecodable(path, data, "no installed decoder can read it") from error
    if stored.shape != image.matrix:
        raise InputError(f"{path}: its pixel data are {stored.shape}, its header says {image.matrix}; get a fresh copy")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported as such
        return np.asarray(stored * image.slope + image.intercept, dtype=np.float32)


def _require_decoder(path: Path, data: "Dataset") -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise _undecodable(path, data, "no decoder for it is installed")


def _undecodable(path: Path, data: "Dataset", reason: str) -> InputError:
    return InputError(
        f"{path}: its pixel data are encoded as {data.file_meta.TransferSyntaxUID.name} and {reason}; "
        "try `pip install pylibjpeg[all]`, or decompress the file, e.g. with `gdcmconv --raw`"
    )


def _require_plain(image: DicomSlice, structure: DicomOutline) -> None:
    """Refuse what is no single-frame greyscale image, saying why."""
    path, frames, samples = image.path, image.numbers("NumberOfFrames", 1), image.numbers("SamplesPerPixel", 1)
    if not structure.has_pixels:
        raise InputError(f"{path}: a DICOM file without pixel data (a report, plan or index?); expected an image")
    count = int(frames[0]) if frames is not None else 1
    if count > 1 or structure.frame_groups:
        raise InputError(
            f"{path}: a multi-frame DICOM image ({count} frames), whose geometry is kept frame by frame and is "
            "not read here; convert it to single-frame files or NIfTI first, e.g. with dcm2niix"
        )
    grey = str(image.header.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
    if samples is None or samples[0] != 1 or not grey:
        raise InputError(f"{path}: a colour DICOM image; expected greyscale (MONOCHROME1 or MONOCHROME2)")


def _require_size(image: DicomSlice, structure: DicomOutline, max_bytes: int | None) -> None:
    path, (rows, columns), allocated = image.path, image.matrix, image.numbers("BitsAllocated", 1)
    bits = int(allocated[0]) if allocated is not None else 0
    if rows < 1 or columns < 1 or bits not in (1, 8, 16, 32, 64):
        raise InputError(f"{path}: not an image: {rows} rows, {columns} columns, {bits} bits; get a fresh copy of it")
    need = (rows * columns * bits + 7) // 8
    if structure.pixel_bytes is not None and structure.pixel_bytes < need:
        raise InputError(
            f"{path}: truncated: {structure.pixel_bytes} bytes of pixel data, {rows} x {columns} pixels of {bits} bits "
            f"need {need}; get a fresh copy of it"
        )
    require(need, resolve(max_bytes), path=path, what="its pixel data")
