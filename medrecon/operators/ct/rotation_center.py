"""Where the rotation axis is seen on the detector."""

import math

import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.operators.ct.parallel_beam import ParallelBeam2D

_LEAST_RANGE = math.radians(165)
_LARGEST_SHIFT = 0.25


def find_rotation_center(sinogram: Tensor, angles: Tensor) -> float:
    """Return the detector column, counted from 0 and fractional, onto which the rotation axis projects.

    Parallel beams see a line again, mirrored, half a turn later. A full turn is matched with itself that
    way. In half a turn the mass of the views tells: its centre follows c + x cos t + y sin t with the column
    c of the axis, whatever the object (the first Helgason-Ludwig condition), unless the object is
    cut off; then the first and the last views are matched. The result is refined within two columns:
    a wrong axis smears edges into streaks of both signs, so the reconstruction with the least energy below
    zero wins.

    Parameters
    ----------
    sinogram
        (views, bins) line integrals.
    angles
        Radians, (views,).

    Raises
    ------
    InputError
        Where the views span less than about half a turn or the sinogram is empty.
    """
    y = sinogram.detach().cpu().double()
    t = angles.detach().cpu().double()
    step = float(torch.diff(t.sort().values).median()) if len(t) > 1 else 0.0
    covered = float(t.max() - t.min()) + step
    if covered < _LEAST_RANGE:
        raise InputError(
            f"the centre of rotation cannot be estimated from {math.degrees(covered):.0f} degrees, half a turn "
            "is needed; give the detector column of the axis with --center COLUMN"
        )
    if not bool((y > 0).any()):
        raise InputError("the centre of rotation cannot be estimated from an empty sinogram; give --center COLUMN")
    partner = _partners(t, step)
    if int((partner >= 0).sum()) > len(t) / 4:
        return _matched(y, partner)
    mass = _mass(y, t)
    return _sharpest(y, t, _matched(y, partner) if mass is None else mass)


def _partners(t: Tensor, step: float) -> Tensor:
    """Return for every view the index of the one half a turn later, -1 where there is none."""
    gap = (t[:, None] - t[None] - math.pi).abs()
    nearest = gap.min(0)
    close = nearest.values <= 0.51 * step + 1e-6
    if not bool(close.any()):  # half a turn, whose end is missing: the first view and the last
        close = nearest.values <= 1.5 * step + 1e-6
    return torch.where(close, nearest.indices, -1)


def _mass(y: Tensor, t: Tensor) -> float | None:
    """Return c of the fit c + x cos t + y sin t to the centres of mass; None where the object is cut off."""
    total = y.sum(1)
    edge = y[:, [0, 1, -2, -1]].abs().mean()
    if float(edge) > 0.05 * float(y.mean()) or float(total.min()) <= 0:
        return None
    centre = (y * torch.arange(y.shape[1], dtype=torch.float64)).sum(1) / total
    basis = torch.stack((torch.ones_like(t), t.cos(), t.sin()), 1)
    return float(torch.linalg.lstsq(basis, centre[:, None]).solution[0, 0])


def _matched(y: Tensor, partner: Tensor) -> float:
    """Return the column about which views and their mirrored partners match best."""
    bins = y.shape[1]
    views = (partner >= 0).nonzero()[:, 0]
    if not len(views):
        return (bins - 1) / 2
    size = 2 * bins
    slope = torch.diff(y, dim=1)  # edges, so that neither the mean nor the borders of the detector count
    spectra = torch.fft.rfft(slope[views], size) * torch.fft.rfft(slope[partner[views]], size)
    score = -torch.fft.irfft(spectra, size).sum(0)  # at index 2c - 1: the sum over k of y(k) y'(2c - 1 - k)
    far = ((torch.arange(size) + 1) / 2 - (bins - 1) / 2).abs() > _LARGEST_SHIFT * bins
    best = int(score.masked_fill(far, -torch.inf).argmax())
    before, at, after = (float(score[(best + offset) % size]) for offset in (-1, 0, 1))
    curvature = before - 2 * at + after
    return (best + 1 + (0.5 * (before - after) / curvature if curvature < 0 else 0.0)) / 2


def _sharpest(y: Tensor, t: Tensor, middle: float) -> float:
    """Return the column near ``middle`` with the cleanest reconstruction, or ``middle`` where none stands out."""
    columns = [middle + offset for offset in (-2, -1, 0, 1, 2)]
    blur = [_blur(y, t, column) for column in columns]
    lowest = min(range(5), key=blur.__getitem__)
    if lowest in (0, 4):
        return middle
    before, at, after = blur[lowest - 1 : lowest + 2]
    curvature = before - 2 * at + after
    return columns[lowest] + (0.5 * (before - after) / curvature if curvature > 0 else 0.0)


def _blur(y: Tensor, t: Tensor, column: float) -> float:
    """Return the share of energy that a reconstruction about this column has below zero."""
    bins = y.shape[1]
    size = min(bins, 256)
    pixel = bins / size
    operator = ParallelBeam2D(
        (size, size),
        t,
        detector_count=bins,
        detector_pitch=1.0,
        pixel_size=pixel,
        center_of_rotation=column - (bins - 1) / 2,
    )
    image = operator.filtered_backprojection(y.float()[None, None])[0, 0]
    return float(image.clamp_max(0).square().sum() / image.square().sum().clamp_min(1e-30))
