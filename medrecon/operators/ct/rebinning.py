"""From helical cone-beam projections to fan-beam sinograms of single slices."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.errors import InputError


@dataclass(frozen=True)
class ConeBeamScan:
    """Where a multi-row detector was in every view; millimetres and radians.

    Parameters
    ----------
    angles
        Source angle, not wrapped: a helix of k turns spans 2π k. (views,)
    z
        Source position along the axis. (views,)
    source_origin, source_detector
        Distances.
    rows, columns
        Of the detector.
    row_pitch, column_pitch
        At the detector.
    central_row, central_column
        Counted from 0, that the ray through the axis meets.
    arc
        Whether the columns lie on an arc around the source.
    """

    angles: Tensor
    z: Tensor
    source_origin: float
    source_detector: float
    rows: int
    columns: int
    row_pitch: float
    column_pitch: float
    central_row: float
    central_column: float
    arc: bool

    @property
    def step(self) -> float:
        """Angle from view to view, negative for a clockwise rotation."""
        return float(self.angles[-1] - self.angles[0]) / max(len(self.angles) - 1, 1)

    @property
    def views_per_turn(self) -> int:
        """Angles that all slices share."""
        return round(2 * math.pi / abs(self.step))

    @property
    def collimation(self) -> float:
        """Distance of the rows at the axis."""
        return self.row_pitch * self.source_origin / self.source_detector


def fan_angles(scan: ConeBeamScan) -> Tensor:
    """Return γ of every column, (columns,) float64."""
    u = (torch.arange(scan.columns, dtype=torch.float64) - scan.central_column) * scan.column_pitch
    u = u / scan.source_detector
    return u if scan.arc else torch.atan(u)


def check_helix(scan: ConeBeamScan) -> None:
    """Raise InputError where angles or z positions do not run evenly, or there is less than one turn."""
    views = len(scan.angles)
    if views < 2 or scan.step == 0 or views < scan.views_per_turn:
        turned = abs(math.degrees(scan.step)) * views
        raise InputError(f"the projections cover {turned:.0f} degrees; expected at least one turn of 360")
    even = scan.angles[0] + scan.step * torch.arange(views)
    gap = (scan.angles - even).abs()
    if float(gap.max()) > 0.5 * abs(scan.step):
        at = int(gap.argmax())
        raise InputError(
            f"the source angles do not run evenly: view {at} is {math.degrees(float(gap[at])):.3g} degrees off, steps "
            f"are {math.degrees(scan.step):.3g}; are projections missing, or those of several scans mixed?"
        )


def slice_positions(scan: ConeBeamScan) -> Tensor:
    """Return z of the slices that a full turn sees, one detector row apart, (slices,) float64."""
    check_helix(scan)
    low, high = float(scan.z.min()), float(scan.z.max())
    turn = scan.views_per_turn
    feed = abs(float(scan.z[-1] - scan.z[0])) / max(len(scan.z) - 1, 1) * turn
    rows = torch.arange(scan.rows, dtype=torch.float64) - scan.central_row
    if feed < 0.5 * scan.collimation:  # the table stands still: a slice for every row
        return (low + high) / 2 + rows * scan.collimation
    first, last = low + feed / 2, high - feed / 2
    count = max(1, math.floor((last - first) / scan.collimation + 1e-6) + 1)
    return (first + last) / 2 + (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * scan.collimation


def fan_sinogram(scan: ConeBeamScan, position: float, view: Callable[[int], Tensor]) -> tuple[Tensor, float]:
    r"""Return the fan-beam sinogram (views per turn, columns) of a slice, and how much of it was missing.

    Single-slice rebinning (Noo, Defrise and Clackdoyle, Phys. Med. Biol. 44:561, 1999): a ray in the slice with
    the fan angle γ is replaced by the oblique one of the same view that crosses the slice half-way through
    the field of view, at the distance R cos γ from the source, times the cosine of its inclination,

        v = D Δz / (R cos γ)  on a cylinder,    v = D Δz / (R cos² γ)  on a plane,

    Δz from the source to the slice. The turn around the slice is taken, at the same angles
    ``angles[0] + j · 2π / views per turn`` for all slices, interpolated linearly between views where they
    do not fall on these, and between rows. Rays that miss the detector take its outermost row.

    Parameters
    ----------
    scan
        The geometry.
    position
        z in mm.
    view
        Returns the line integrals (rows, columns) of a view.

    Returns
    -------
        Line integrals, and the share of rays that missed the detector.
    """
    turn, step = scan.views_per_turn, scan.step
    middle = int((scan.z - position).abs().argmin()) if float(scan.z.max() - scan.z.min()) > 0 else len(scan.z) // 2
    cosine = torch.cos(fan_angles(scan))
    lever = scan.source_detector / (scan.source_origin * (cosine if scan.arc else cosine**2)) / scan.row_pitch
    columns = torch.arange(scan.columns)
    result, missed = torch.zeros(turn, scan.columns, dtype=torch.float64), 0
    spacing = 2 * math.pi / turn / abs(step)  # views between two of the shared angles
    for j in range(turn):
        at = j * spacing
        at += turn * spacing * round((middle - at) / (turn * spacing))
        while at > len(scan.z) - 1 + 1e-6:
            at -= turn * spacing
        while at < -1e-6:
            at += turn * spacing
        at = min(max(at, 0.0), len(scan.z) - 1.0)
        first = min(int(at + 1e-6), len(scan.z) - 1)
        share = max(at - first, 0.0)
        for index, weight in ((first, 1 - share), (min(first + 1, len(scan.z) - 1), share)):
            if weight < 1e-6:
                continue
            rise = position - float(scan.z[index])
            row = scan.central_row + rise * lever
            missed += int(((row < -0.5) | (row > scan.rows - 0.5)).sum())
            row = row.clamp(0, scan.rows - 1)
            below = row.floor().long().clamp(max=max(scan.rows - 2, 0))
            fraction = row - below
            data = view(index).double()
            line = (
                data[below, columns] * (1 - fraction) + data[(below + 1).clamp(max=scan.rows - 1), columns] * fraction
            )
            result[j] += weight * line / torch.sqrt(1 + (rise / (scan.source_origin * cosine)) ** 2)
    return result, missed / (turn * scan.columns)
