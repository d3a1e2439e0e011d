"""Position and orientation in the HDF5 files that medrecon writes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from medrecon.errors import InputError
from medrecon.io.geometry import Geometry
from medrecon.io.hdf5 import Hdf5File

if TYPE_CHECKING:
    import h5py

_AFFINE = "affine"
_ORIENTED = "oriented"


def write_affine(file: "h5py.File", geometry: Geometry) -> None:
    """Store a geometry.

    Dataset ``affine`` (4, 4), voxel (column, row, slice) to mm in RAS+, and attribute ``oriented``.
    """
    file[_AFFINE] = geometry.affine
    file.attrs[_ORIENTED] = np.uint8(geometry.oriented)


def read_affine(hdf5: Hdf5File) -> Geometry | None:
    """Return the geometry that :func:`write_affine` stored, or None."""
    if _AFFINE not in hdf5.datasets:
        return None
    affine: Any = hdf5.read(_AFFINE)
    try:
        oriented = bool(hdf5.attributes.get("", {}).get(_ORIENTED, 1))
        return Geometry(np.asarray(affine, dtype=np.float64), oriented=oriented)
    except (TypeError, ValueError) as error:
        raise InputError(f"{hdf5.path}: 'affine' is not an invertible 4x4 matrix of finite numbers") from error
