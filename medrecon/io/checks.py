"""Each slice is looked at when it is read: one NaN in k-space ruins a whole image silently."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from medrecon.errors import EmptyDataError, NumericalError
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack

Nonfinite = Literal["error", "zero"]

_logger = logging.getLogger("medrecon")


def checked(stack: SliceStack, path: Path, *, nonfinite: Nonfinite = "error", what: str = "k-space") -> SliceStack:
    """Stack that verifies each slice of ``stack`` as it is read.

    Parameters
    ----------
    stack
        Slices of ``path``; those of three axes count as (coils, read-out, phase-encoding lines) in messages.
    path
        For messages.
    nonfinite
        ``error`` raises :class:`NumericalError` at the first NaN or Inf; ``zero`` replaces such
        samples by 0 and warns through the logger ``medrecon``.
    what
        What the slices hold, for messages.

    Notes
    -----
    A slice without a single nonzero sample raises :class:`EmptyDataError` in either case.
    """

    def read(index: int) -> Tensor:
        samples = stack[index]
        total = _total(samples)
        if math.isfinite(total) and total > 0:
            return samples
        bad = ~torch.isfinite(samples)  # may find nothing: huge samples overflow the sum
        count = int(bad.sum())
        if count:
            where = _place(bad)
            if nonfinite == "error":
                raise NumericalError(
                    f"{path}: {what} of slice {index} holds {count} NaN or infinite samples of {samples.numel()}, "
                    f"the first at {where}; go on with --nonfinite zero (they become 0) or leave the slice out "
                    "with --slices"
                )
            _logger.warning(
                "%s: %d NaN or infinite samples in the %s of slice %d set to 0, the first at %s",
                path, count, what, index, where,
            )  # fmt: skip
            samples = samples.masked_fill(bad, 0)
        if not samples.any():
            raise EmptyDataError(
                f"{path}: {what} of slice {index} is zero everywhere, so there is nothing to reconstruct; "
                "leave the slice out with --slices"
            )
        return samples

    return replace(stack, read=read)


def with_checks(scan: Scan, nonfinite: Nonfinite) -> Scan:
    """Scan whose measurements and calibration data are verified as they are read."""
    path, acquisition = scan.source, scan.acquisition
    mri = isinstance(acquisition, CartesianAcquisition)
    what = "k-space" if mri else "measurement data"
    if isinstance(acquisition, CartesianAcquisition) and acquisition.calibration is not None:
        calibration = checked(acquisition.calibration, path, nonfinite=nonfinite, what="calibration k-space")
        acquisition = replace(acquisition, calibration=calibration)
    notes = scan.notes
    if nonfinite == "zero":
        notes = (*notes, "NaN and infinite samples, if any, are read as 0 (--nonfinite zero)")
    measurements = checked(scan.measurements, path, nonfinite=nonfinite, what=what)
    return replace(scan, measurements=measurements, acquisition=acquisition, notes=notes)


def _total(samples: Tensor) -> float:
    """Sum of magnitudes of the real and imaginary parts: in one pass it shows NaN, Inf and all zeros."""
    parts = torch.view_as_real(samples) if samples.is_complex() else samples
    return float(torch.linalg.vector_norm(parts.to(torch.promote_types(parts.dtype, torch.float32)), ord=1))


def _place(bad: Tensor) -> str:
    """First true element, in the words of the field where the axes are known."""
    first = [int(position) for position in bad.nonzero()[0]]
    if len(first) == 3:
        return f"coil {first[0]}, line {first[2]}, sample {first[1]}"
    return f"index {tuple(first)}"
