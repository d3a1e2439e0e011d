"""Where an image lies in the patient: one affine, one convention."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Geometry:
    """Position and spacing of a stack of slices.

    ``affine`` (4, 4) float64 maps the voxel index (column, row, slice, 1) to patient coordinates in
    mm, axes RAS+ (right, anterior, superior), as NIfTI does. An array ``(slices, rows, columns)`` is
    therefore what NIfTI calls ``array.transpose(2, 1, 0)``. DICOM's coordinates are LPS+: the first
    two rows change sign.

    ``oriented`` tells whether position and directions come from the file; when False only the
    spacing is real and the directions are a stated convention (axial, see :meth:`from_spacing`).
    """

    affine: NDArray[np.float64]
    oriented: bool = True

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError(f"Geometry: expected an invertible 4x4 affine with finite entries, got {affine.tolist()}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between columns, rows and slices."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @classmethod
    def from_spacing(cls, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> "Geometry":
        """Geometry with true spacing (column, row, slice; mm) but no known position or orientation.

        The directions are those of an axial DICOM slice (columns run to the patient's left, rows to
        posterior, slices to superior) and the centre of the stack ``shape`` (slices, rows, columns)
        lies at the origin.
        """
        dx, dy, dz = spacing
        slices, rows, columns = shape
        affine = np.diag([-dx, -dy, dz, 1.0])
        affine[:3, 3] = [dx * (columns - 1) / 2, dy * (rows - 1) / 2, -dz * (slices - 1) / 2]
        return cls(affine, oriented=False)

    def shifted(self, *, columns: float = 0, rows: float = 0, slices: float = 0) -> "Geometry":
        """Geometry of a crop that starts at this (column, row, slice) of the present stack."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ np.array([columns, rows, slices, 1.0]))[:3]
        return Geometry(affine, self.oriented)
