"""Where the slices of an ISMRMRD scan lie: from LPS positions and directions to one RAS affine."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.io.geometry import Geometry

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Placement:
    """Order and place of the slices.

    ``numbers`` are the slice counters in spatial order; ``origin`` (LPS, mm) is the centre of the
    first slice, ``read``, ``phase`` and ``step`` the directions in which x, y and the slices run
    (``step`` with its length). ``oriented`` is False where the file's positions make no stack.
    """

    numbers: NDArray[np.int64]
    origin: NDArray[np.float64]
    read: NDArray[np.float64]
    phase: NDArray[np.float64]
    step: NDArray[np.float64]
    oriented: bool
    notes: tuple[str, ...] = ()

    def geometry(
        self,
        columns: tuple[NDArray[np.float64], float],
        rows: tuple[NDArray[np.float64], float],
        slices: NDArray[np.float64],
        centre: tuple[int, int, int],
        shape: tuple[int, int, int],
    ) -> Geometry:
        """Affine of a stack.

        Parameters
        ----------
        columns, rows
            Direction and spacing along the column index and the row index.
        slices
            Vector from slice to slice.
        centre
            Voxel (column, row, slice) that lies at ``origin``.
        shape
            (slices, rows, columns).
        """
        spacing = (columns[1], rows[1], float(np.linalg.norm(slices)))
        if not self.oriented:
            return Geometry.from_spacing(spacing, shape)
        affine = np.eye(4)
        for axis, vector in enumerate((columns[0] * columns[1], rows[0] * rows[1], slices)):
            affine[:3, axis] = vector * _LPS_TO_RAS
        affine[:3, 3] = self.origin * _LPS_TO_RAS - affine[:3, :3] @ np.array(centre, dtype=np.float64)
        return Geometry(affine)


def place_slices(heads: NDArray[Any], thickness: float) -> Placement:
    """Order slices along their normal and check that they make a regular stack.

    Parameters
    ----------
    heads
        Headers of the image lines.
    thickness
        In mm: the distance of slices where their positions do not tell.
    """
    numbers, first = np.unique(heads["idx"]["slice"], return_index=True)
    lines = heads[first]
    with np.errstate(invalid="ignore"):  # a signalling NaN; what is not finite is refused below
        positions, read, phase, normal = (
            lines[name].astype(np.float64) for name in ("position", "read_dir", "phase_dir", "slice_dir")
        )
    numbers = numbers.astype(np.int64)

    def unplaced(reason: str) -> Placement:
        axes = np.eye(3)
        note = f"{reason}: the image has true spacing but no position and orientation"
        return Placement(numbers, np.zeros(3), axes[0], axes[1], axes[2] * thickness, False, (note,))

    unit = normal[0] if normal[0].any() else np.cross(read[0], phase[0])
    frame = np.stack([read[0], phase[0], unit])
    if not (
        np.isfinite(frame).all() and np.isfinite(positions).all() and np.abs(frame @ frame.T - np.eye(3)).max() < 1e-3
    ):
        return unplaced("the file gives no orthogonal read, phase and slice directions")
    if max(np.abs(read - read[0]).max(), np.abs(phase - phase[0]).max()) > 1e-3:
        return unplaced("the slices differ in orientation")
    if len(numbers) == 1:
        return Placement(numbers, positions[0], read[0], phase[0], unit * thickness, True)
    order, notes = np.arange(len(numbers)), []
    if not _regular(positions):
        order = np.argsort(positions @ unit, kind="stable")
        notes.append("slices were sorted by position")
    placed = positions[order]
    step = (placed[-1] - placed[0]) / (len(placed) - 1)
    length = float(np.linalg.norm(step))
    if not _regular(placed) or length < 1e-3:
        gaps = np.diff(placed @ unit)
        return unplaced(f"the slices are not equally spaced (gaps of {gaps.min():.2f} to {gaps.max():.2f} mm)")
    if float(np.linalg.norm(step - (step @ unit) * unit)) > 0.01 * length:
        return unplaced("the slices do not follow one another along their normal")
    return Placement(numbers[order], placed[0], read[0], phase[0], step, True, tuple(notes))


def _regular(positions: NDArray[np.float64]) -> bool:
    """Whether positions follow one another in equal steps, to 1 % or 0.01 mm."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    tolerance = max(0.01, 0.01 * float(np.linalg.norm(step)))
    return bool(np.abs(positions - expected).max() <= tolerance)
