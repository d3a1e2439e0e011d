"""Everything but the pixels of a DICOM instance, element by element from an allow-list.

Type 1 elements always have a value, type 2 ones are present and empty where nothing is known: no
name, date or number is made up. Elements that no rule below names are not written.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import medrecon
from medrecon.io.image import Image
from medrecon.io.writers.dicom_template import PATIENT, STUDY, Template
from medrecon.io.writers.sidecar import NOTICE

if TYPE_CHECKING:
    from pydicom import Dataset

_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_MEASURED = {
    "repetition_time": "RepetitionTime",
    "echo_time": "EchoTime",
    "inversion_time": "InversionTime",
    "flip_angle": "FlipAngle",
    "field_strength": "MagneticFieldStrength",
}
# Laterality must be absent for a part that is single, and has to be told for one of a pair; other
# parts are left out, since a wrong combination makes the file invalid.
_SINGLE = frozenset({"BRAIN", "HEAD", "NECK", "CHEST", "ABDOMEN", "PELVIS", "HEART", "LIVER", "PROSTATE", "SKULL"})
_PAIRED = frozenset({"KNEE", "HIP", "SHOULDER", "ELBOW", "WRIST", "HAND", "FOOT", "ANKLE", "BREAST"})
_FIRST_SERIES = 1000


@dataclass(frozen=True)
class SeriesIdentity:
    """UIDs and number that all files of one call share."""

    study: str
    series: str
    frame_of_reference: str
    number: int = _FIRST_SERIES


def new_identity(template: Template | None, *, oriented: bool) -> SeriesIdentity:
    """Draw fresh UIDs; the study's is the template's, and the frame's too if the image really lies in it."""
    from pydicom.uid import generate_uid

    study = template.values["StudyInstanceUID"] if template is not None else None
    frame = template.frame_of_reference if template is not None and oriented else None
    fresh = [str(generate_uid(prefix=None)) for _ in range(3)]
    return SeriesIdentity(study or fresh[0], fresh[1], frame or fresh[2])


def describe(image: Image) -> str:
    """Text of DerivationDescription: method, version, warning, and what is assumed of the geometry."""
    parts = [f"Reconstructed by medrecon {medrecon.__version__}"]
    method = image.provenance.get("method")
    if isinstance(method, str) and method:
        parts.append(f"method {plain(method, 64)}")
    parts.append(NOTICE)
    if not image.geometry.oriented:
        parts.append("position and orientation unknown, axial assumed")
    elif "geometry" in image.provenance:
        parts.append(plain(str(image.provenance["geometry"]), 128))
    return "; ".join(parts)


def plain(text: str, length: int) -> str:
    """Keep what every DICOM string may hold: printable ASCII without backslash."""
    return "".join(letter for letter in text if letter != "\\" and " " <= letter <= "~")[:length].strip()


def fill_attributes(data: "Dataset", image: Image, identity: SeriesIdentity, template: Template | None) -> None:
    """Set what is the same in every slice of the series."""
    # UTF-8 holds any name that a template brings, whatever its own character set
    data.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _EMPTY:
        setattr(data, keyword, "")
    values = template.values if template is not None else {}
    for keyword in PATIENT + STUDY:
        if keyword in values:
            setattr(data, keyword, values[keyword])
    if not {"PatientIdentityRemoved", "DeidentificationMethod"} <= values.keys():
        for keyword in ("PatientIdentityRemoved", "DeidentificationMethod"):  # valid only together
            data.pop(keyword, None)
    data.StudyInstanceUID = identity.study
    _series(data, image, identity)
    _region(data, values)
    now = datetime.datetime.now(tz=datetime.UTC)
    data.ContentDate, data.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.TimezoneOffsetFromUTC = "+0000"
    if image.modality == "CT":
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.KVP = None
    else:
        _magnetic_resonance(data, image)


def _series(data: "Dataset", image: Image, identity: SeriesIdentity) -> None:
    data.Modality = image.modality
    data.SeriesInstanceUID = identity.series
    data.SeriesNumber = identity.number
    data.SeriesDescription = plain(f"medrecon {image.provenance.get('method', '')} {NOTICE}", 64)
    data.FrameOfReferenceUID = identity.frame_of_reference
    data.PositionReferenceIndicator = ""
    data.Manufacturer = "medrecon"
    data.ManufacturerModelName = "medrecon"
    data.SoftwareVersions = medrecon.__version__
    data.DerivationDescription = describe(image)
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    data.AcquisitionNumber = None


def _region(data: "Dataset", values: Mapping[str, str]) -> None:
    data.PatientPosition = values.get("PatientPosition", "")
    part, side = values.get("BodyPartExamined", "").upper(), values.get("Laterality", "")
    if part in _SINGLE:
        data.BodyPartExamined = part
        return
    data.Laterality = side if side in ("L", "R") else ""
    if part in _PAIRED and side in ("L", "R"):
        data.BodyPartExamined = part


def _magnetic_resonance(data: "Dataset", image: Image) -> None:
    from pydicom.valuerep import format_number_as_ds

    data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data.ScanningSequence = "RM"
    data.SequenceVariant = "NONE"
    data.ScanOptions = ""
    data.MRAcquisitionType = ""
    for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength"):
        setattr(data, keyword, None)
    for name, keyword in _MEASURED.items():
        value = image.header.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
            setattr(data, keyword, format_number_as_ds(float(value)))
