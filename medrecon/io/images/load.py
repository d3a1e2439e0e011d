"""One door for images in: the format follows from the first bytes."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from medrecon.errors import InputError, NumericalError
from medrecon.io.dicom_preflight import is_dicom
from medrecon.io.image import Image
from medrecon.io.images.nifti import is_nifti, load_nifti
from medrecon.io.images.nrrd import is_nrrd, load_nrrd
from medrecon.io.images.raster import is_raster, load_raster

_log = logging.getLogger(__name__)


def load_image(
    path: Path | str,
    key: str | None = None,
    *,
    max_bytes: int | None = None,
    modality: Literal["MR", "CT", "OT"] | None = None,
    warn: bool = True,
) -> Image:
    """Read an image (slices, rows, columns) as float32 or complex64, values as the file states them.

    NIfTI (2-D, 3-D, one volume of 4-D), a DICOM file or a folder with one series, NRRD, PNG, JPEG, TIFF and
    BMP (colour becomes luma; 0 to 255 stays so), .npy, .npz, .mat and HDF5 with a reconstruction.

    Parameters
    ----------
    path
        File, or folder of DICOM files.
    key
        Variable or dataset in an array file; number of the stack, from 1, in a DICOM folder; number
        of the volume, from 1, in a 4-D NIfTI (``--key``).
    max_bytes
        Largest number of bytes that may be read; None takes half of the free memory.
    modality
        Of the result, where the file does not say; files that do (DICOM, our own) are not overruled.
    warn
        Whether to log what had to be assumed; it is in ``provenance["notes"]`` anyway.
    """
    path = Path(path)
    if path.is_dir():
        from medrecon.io.dicom_series import load_series

        image = load_series(path, key=key, max_bytes=max_bytes)
    else:
        image = _load_file(path, key, max_bytes)
    if modality is not None and image.modality == "OT":
        image = replace(image, modality=modality)
    _require_finite(path, image)
    notes = image.provenance.get("notes", [])
    for note in notes if warn else ():
        _log.warning("%s: %s", path, note)
    return image


def _load_file(path: Path, key: str | None, max_bytes: int | None) -> Image:
    from medrecon.io.images.arrays import is_array_file, load_array_image
    from medrecon.io.source import Source

    with Source(path, max_bytes=max_bytes) as source:
        head = source.head
    if is_dicom(path):
        from medrecon.io.dicom_series import load_series

        return load_series(path, key=key, max_bytes=max_bytes)
    if is_nifti(path, head):
        return load_nifti(path, key=key, max_bytes=max_bytes)
    if is_nrrd(head):
        return load_nrrd(path, max_bytes=max_bytes)
    if is_raster(head):
        return load_raster(path, max_bytes=max_bytes)
    if is_array_file(head):
        return load_array_image(path, key=key, max_bytes=max_bytes)
    raise InputError(
        f"{path}: not an image of a known format; expected NIfTI, DICOM, NRRD, PNG, JPEG, TIFF, BMP, .npy, .npz, .mat "
        "or HDF5 with a reconstruction"
    )


def _require_finite(path: Path, image: Image) -> None:
    for index, plane in enumerate(image.array):
        bad = plane.size - int(np.isfinite(plane).sum())
        if bad:
            raise NumericalError(
                f"{path}: slice {index + 1} of {len(image.array)} has {bad} values that are NaN or infinite; "
                "replace them (e.g. by 0) before using the image"
            )
