"""Classic MR and CT Image Storage out, one file a slice."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.writers.dicom_attributes import SeriesIdentity, fill_attributes, new_identity
from medrecon.io.writers.dicom_template import Template
from medrecon.io.writers.window import robust_window

if TYPE_CHECKING:
    from pydicom import Dataset

_SHEAR = 1e-4
_MR_BITS = 12
_CT_INTERCEPT = -1024
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class StoredPixels:
    """Unsigned integers and the line that turns them back: value = slope * stored + intercept."""

    stored: NDArray[np.uint16]
    bits: int
    slope: float
    intercept: float


def check_dicom(image: Image) -> None:
    """Raise UsageError where an image cannot be a DICOM series; called before anything is written."""
    if image.modality not in ("MR", "CT"):
        raise UsageError(
            f"DICOM is written for the modalities MR and CT, got {image.modality}; "
            "write a .nii.gz, .npz or .png instead"
        )
    axes = image.geometry.affine[:3, :3] / np.asarray(image.geometry.spacing)
    if float(np.abs(axes.T @ axes - np.eye(3)).max()) > _SHEAR:
        raise UsageError(
            "the image has a sheared grid (rows, columns and slices are not perpendicular), which a DICOM series "
            "cannot hold; write a .nii.gz instead"
        )
    if image.modality == "CT":
        spread = float(np.ptp(image.magnitude))
        if 0 < spread < 4 or spread > 65535:
            raise UsageError(
                f"a CT image in DICOM is stored as whole Hounsfield units, but the values span {spread:.4g}; "
                "state the attenuation of water to convert to HU (--mu-water 0.02), or write a .nii.gz instead"
            )


def write_dicom(image: Image, paths: list[Path], template: Template | None = None) -> None:
    """Write slice ``i`` of an image to ``paths[i]``, as one series with fresh series and instance UIDs.

    MR: 12 bits over the range of the whole stack, with a real-world value mapping back to its values.
    CT: whole Hounsfield units, slope 1, intercept -1024 (lower where the values go lower), 12 bits
    where that suffices and 16 elsewhere: nothing is clipped.
    """
    check_dicom(image)
    pixels = quantise(image)
    identity = new_identity(template, oriented=image.geometry.oriented)
    for index, path in enumerate(paths):
        data = _instance(image, pixels, identity, template, index)
        data.save_as(path, enforce_file_format=True)


def quantise(image: Image) -> StoredPixels:
    """Map the values of a stack to unsigned integers, one line for all slices."""
    values = image.magnitude.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.modality == "CT":
        intercept = min(float(_CT_INTERCEPT), float(np.floor(low)))
        stored = np.rint(values - intercept)
        return StoredPixels(stored.astype(np.uint16), 12 if stored.max() < 4096 else 16, 1.0, intercept)
    low = min(low, 0.0)
    top = 2**_MR_BITS - 1
    slope = (high - low) / top if high > low else 1.0
    return StoredPixels(np.rint((values - low) / slope).astype(np.uint16), _MR_BITS, slope, low)


def _instance(
    image: Image, pixels: StoredPixels, identity: SeriesIdentity, template: Template | None, index: int
) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = CTImageStorage if image.modality == "CT" else MRImageStorage
    data.SOPInstanceUID = generate_uid(prefix=None)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    fill_attributes(data, image, identity, template)
    data.InstanceNumber = index + 1
    _fill_plane(data, image, index)
    _fill_pixels(data, pixels, index)
    if image.modality == "CT":
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = "1", _ds(pixels.intercept), "HU"
    else:
        # a rescale would make the file a "Standard Extended" MR; this is the way the standard has for it
        data.RealWorldValueMappingSequence = [_real_world(pixels)]
    black, white = robust_window(image.magnitude)
    if image.modality != "CT":  # the window applies after the rescale, which only CT has
        black, white = ((value - pixels.intercept) / pixels.slope for value in (black, white))
    data.WindowCenter, data.WindowWidth = _ds((black + white) / 2), _ds(max(white - black, 1.0))
    return data


def _fill_plane(data: "Dataset", image: Image, index: int) -> None:
    columns, rows, _ = image.geometry.spacing
    axes, position = plane(image.geometry, index)
    data.ImageOrientationPatient = [_ds(value) for value in axes.reshape(-1)]
    data.ImagePositionPatient = [_ds(value) for value in position]
    data.PixelSpacing = [_ds(rows), _ds(columns)]
    step = image.geometry.spacing[2]
    thickness = image.header.get("slice_thickness")
    data.SliceThickness = _ds(thickness if isinstance(thickness, int | float) and 0 < thickness < 1e6 else step)
    if image.array.shape[0] > 1:
        data.SpacingBetweenSlices = _ds(step)


def plane(geometry: Geometry, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the directions (2, 3) and the position (3,) of a slice in DICOM's LPS coordinates."""
    affine = geometry.affine
    axes = _RAS_TO_LPS @ (affine[:3, :2] / np.asarray(geometry.spacing[:2]))
    position = _RAS_TO_LPS @ (affine[:3, 3] + index * affine[:3, 2])
    return axes.T + 0.0, position + 0.0  # no negative zeros


def _fill_pixels(data: "Dataset", pixels: StoredPixels, index: int) -> None:
    stored = pixels.stored[index]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, pixels.bits, pixels.bits - 1
    data.PixelRepresentation = 0
    data.PixelData = stored.astype("<u2").tobytes()


def _real_world(pixels: StoredPixels) -> "Dataset":
    from pydicom import Dataset

    unit = Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "1", "UCUM", "no units"
    mapping = Dataset()
    mapping.LUTExplanation = "reconstructed intensity, arbitrary units"
    mapping.LUTLabel = "INTENSITY"
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, 2**pixels.bits - 1
    # the two bounds may be US or SS in a data set; the pixels are unsigned
    for keyword in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
        mapping[keyword].VR = "US"
    mapping.RealWorldValueIntercept = float(pixels.intercept)
    mapping.RealWorldValueSlope = float(pixels.slope)
    mapping.MeasurementUnitsCodeSequence = [unit]
    return mapping


def _ds(value: Any) -> str:  # noqa: ANN401  (any real number)
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))  # at most 16 characters
