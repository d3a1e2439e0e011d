"""Images that lie half a field of view off: k-space of somebody who left out one of the two FFT shifts."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.checks import Nonfinite
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack
from medrecon.operators.fourier import centred_ifft

# How much brighter the border of an image must be than its central cross before it counts as shifted.
_CLEAR = 16.0


def with_half_fov_shift(scan: Scan) -> Scan:
    """Scan whose images are moved by half the field of view along both axes.

    The samples at k are multiplied by exp(2πi k ⌊N/2⌋ / N), k counted from the centre: a sign where N is even.
    """
    if not isinstance(scan.acquisition, CartesianAcquisition):
        raise InputError(f"{scan.source}: --half-fov-shift is for k-space, this file holds other measurements")
    acquisition = scan.acquisition
    if acquisition.calibration is not None:
        acquisition = replace(acquisition, calibration=_shifted(acquisition.calibration))
    notes = (*scan.notes, "the image is moved by half the field of view (--half-fov-shift)")
    return replace(scan, measurements=_shifted(scan.measurements), acquisition=acquisition, notes=notes)


def with_shift_hint(scan: Scan, nonfinite: Nonfinite) -> Scan:
    """Scan with a note if its middle slice looks as if it were half a field of view off.

    Then the border of the image cuts through the object and the lines through its centre run through air.
    """
    kspace = scan.measurements[len(scan.measurements) // 2]
    if nonfinite == "zero":
        kspace = torch.where(torch.isfinite(kspace), kspace, 0)
    energy = centred_ifft(kspace).abs().square().sum(0)
    if min(energy.shape) < 16 or not bool(torch.isfinite(energy).all()):
        return scan
    border, cross = (
        energy.roll(shifts, (0, 1))[:2].mean() + energy.roll(shifts, (0, 1))[:, :2].mean()
        for shifts in ((0, 0), (-(energy.shape[0] // 2), -(energy.shape[1] // 2)))
    )
    if not bool(border > _CLEAR * cross):
        return scan
    hint = "the image seems to be half a field of view off, its corners meet in the middle: try --half-fov-shift"
    return replace(scan, notes=(*scan.notes, hint))


def _shifted(stack: SliceStack) -> SliceStack:
    ramp = _ramp(stack.shape[-2:])
    return replace(stack, read=lambda index: stack[index] * ramp)


def _ramp(shape: Sequence[int]) -> Tensor:
    ramp = torch.ones((), dtype=torch.complex128)
    for size in shape:
        turns = (torch.arange(size) - size // 2) * (size // 2) / size
        ramp = ramp[..., None] * torch.exp(2j * torch.pi * turns.double())
    return ramp.to(torch.complex64)
