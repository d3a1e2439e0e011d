"""NIfTI-1 out."""

from pathlib import Path

import numpy as np

import medrecon
from medrecon.io.image import Image

SCANNER, ALIGNED, UNKNOWN = 1, 2, 0
ASSUMED = "orientation assumed"
_SHEAR = 1e-4


def description(image: Image) -> str:
    """Text of the header's ``descrip``: at most 79 characters, read back by :mod:`medrecon.io.images`."""
    orientation = "" if image.geometry.oriented else f", {ASSUMED}"
    return f"medrecon {medrecon.__version__} {image.modality}{orientation}, not for diagnostic use"[:79]


def write_nifti(image: Image, path: Path) -> None:
    """Write float32 or complex64 voxels, RAS affine in mm, to a ``.nii`` or ``.nii.gz``.

    A known position in the scanner gets code 1 (scanner) in both sform and qform. Where directions
    are only assumed, the affine stands in the sform with code 2 (what most programs write for "some
    sensible frame"; with code 0 each viewer would make up a different one), the qform has code 0, and
    ``descrip`` says "orientation assumed". A sheared affine cannot be a qform: that gets code 0 too.
    """
    import nibabel

    affine = image.geometry.affine
    dtype = np.complex64 if np.iscomplexobj(image.array) else np.float32
    voxels = np.asarray(image.array, dtype=dtype).transpose(2, 1, 0)
    nifti = nibabel.Nifti1Image(voxels, affine)
    oriented = image.geometry.oriented
    sform = SCANNER if oriented else ALIGNED
    qform = SCANNER if oriented and not _sheared(image) else UNKNOWN
    nifti.set_sform(affine, code=sform)
    nifti.set_qform(affine, code=qform, strip_shears=True)
    nifti.header.set_xyzt_units("mm", "unknown")
    nifti.header["descrip"] = description(image).encode("ascii", "replace")
    nibabel.save(nifti, path)


def _sheared(image: Image) -> bool:
    axes = image.geometry.affine[:3, :3] / np.asarray(image.geometry.spacing)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR)
