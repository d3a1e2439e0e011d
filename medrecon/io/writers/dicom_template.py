"""Identifiers (and, on request, the geometry) of an existing DICOM series for the series we write."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medrecon.errors import InputError, UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image

if TYPE_CHECKING:
    from medrecon.io.dicom_slice import HeaderValue

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge")
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod",
)  # fmt: skip
REGION = ("BodyPartExamined", "Laterality", "PatientPosition")
_log = logging.getLogger(__name__)
_SAME = ("PatientID", "StudyInstanceUID")


@dataclass(frozen=True)
class Template:
    """What may be taken from an existing series; never its series or instance UIDs.

    Parameters
    ----------
    values
        Keyword to text of the allow-listed elements that are present and not empty.
    frame_of_reference
        UID of its coordinate system, where it is one for all files.
    grids
        ((slices, rows, columns), geometry) of each regular stack it holds.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    frame_of_reference: str | None = None
    grids: tuple[tuple[tuple[int, int, int], Geometry], ...] = ()


def read_template(path: Path) -> Template:
    """Read the headers of a DICOM file or of a folder of files of one patient and one study."""
    from medrecon.io.dicom_series import find_series

    groups = find_series(path)
    headers = [slice_.header for group in groups for slice_ in group.slices]
    for keyword in _SAME:
        if len({str(header.get(keyword, "")) for header in headers}) > 1:
            raise InputError(
                f"{path}: its files belong to several patients or studies ({keyword} differs); "
                "pass the folder of a single series to --template"
            )
    values = {}
    for keyword in PATIENT + STUDY + REGION:
        text = _text(headers[0], path, keyword)
        if text:
            values[keyword] = text
    if "StudyInstanceUID" not in values:
        raise InputError(f"{path}: has no StudyInstanceUID and cannot serve as --template; pass another series")
    frames = {_text(header, path, "FrameOfReferenceUID") for header in headers}
    grids = []
    for group in groups:
        try:
            geometry = group.geometry()
        except InputError:
            continue  # an irregular stack has no geometry to offer, but its identifiers are as good as any
        if geometry.oriented:
            grids.append(((len(group.slices), *group.matrix), geometry))
    return Template(values, frames.pop() or None if len(frames) == 1 else None, tuple(grids))


def fitting_geometry(image: Image, template: Template) -> Geometry | None:
    """Return the geometry of the template's only stack with the grid of the image, else None."""
    fits = [geometry for shape, geometry in template.grids if shape == image.array.shape]
    return fits[0] if len(fits) == 1 else None


def with_template_geometry(image: Image, template: Template) -> Image:
    """Return the image with the template's position and orientation, and a note of it in the provenance.

    Only the user can know that rows, columns and slices of both run the same way: a raw file without
    orientation may well be mirrored against the scanner's own images. Hence never done unasked.
    """
    if image.geometry.oriented:
        raise UsageError(
            "--template-geometry: the position of the image is known from its own file; leave the option out"
        )
    geometry = fitting_geometry(image, template)
    if geometry is None:
        found = ", ".join("x".join(map(str, shape)) for shape, _ in template.grids) or "no regular stack"
        raise UsageError(
            f"--template-geometry: expected one stack of {'x'.join(map(str, image.array.shape))} "
            f"(slices x rows x columns) in the template, found {found}; leave the option out"
        )
    note = "position and orientation taken over from the template series"
    return replace(image, geometry=geometry, provenance={**image.provenance, "geometry": note})


def _text(header: Mapping[str, "HeaderValue"], path: Path, keyword: str) -> str:
    """Value of an element as text; one that the standard forbids is left out, a forbidden UID is an error."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VR
    from pydicom.valuerep import validate_value

    text = str(header.get(keyword, "")).strip()
    try:
        validate_value(dictionary_VR(keyword), text, RAISE)
    except ValueError:
        if keyword.endswith("UID"):
            raise InputError(f"{path}: its {keyword} is not a valid UID; pass another series to --template") from None
        _log.warning("%s: its %s breaks the DICOM standard and is not taken over", path, keyword)
        return ""
    return text
