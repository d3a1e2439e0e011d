"""From measured intensities to line integrals."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medrecon.errors import EmptyDataError, InputError, NumericalError, UsageError

_LEAST_PHOTONS = 0.1
_LEAST_TRANSMISSION = 1e-5
_DEAD_SHARE = 0.25


class PrelogReport(NamedTuple):
    """What was repaired on the way, in samples (``dead`` in bins)."""

    clamped: int = 0
    above: int = 0
    dead: int = 0
    nonfinite: int = 0
    samples: int = 0

    def notes(self) -> list[str]:
        """Return sentences for the user; none where nothing happened that matters."""
        found = []
        if self.dead:
            found.append(f"{self.dead} detector bins without signal were interpolated from their neighbours")
        if self.nonfinite:
            found.append(f"{self.nonfinite} samples that were NaN or Inf were interpolated along the detector")
        if self.clamped:
            found.append(
                f"{self.clamped} of {self.samples} samples had no photons left and were raised to the least intensity"
            )
        if self.above > self.samples / 2:
            found.append(
                f"{self.above} of {self.samples} samples are brighter than the beam without an object: is the white "
                "field right?"
            )
        return found


def line_integrals(
    counts: Tensor,
    *,
    white: Tensor | None = None,
    dark: Tensor | None = None,
    i0: float | None = None,
    nonfinite: Literal["error", "zero"] = "error",
) -> tuple[Tensor, PrelogReport]:
    r"""Return :math:`y = -\ln\frac{I - D}{W - D}` or :math:`-\ln (I / I_0)`, the law of Beer and Lambert.

    Samples without photons have no logarithm. With ``i0`` they are raised to 0.1 photons, as in the
    LoDoPaB-CT data set; a ratio of fields is raised to 1e-5, a line integral of 11.5, which no
    detector of 16 bits resolves. Bins that are dead (white not above dark, or never finite) are
    interpolated between their live neighbours.

    Parameters
    ----------
    counts
        I, (..., views, bins): photons, detector units, or a transmission (``i0=1``).
    white, dark
        Fields W without object and D without beam, (bins,) or (fields, bins), which are averaged.
    i0
        Intensity without object, where there is no white field.
    nonfinite
        What to do with single samples that are NaN or Inf: stop, or interpolate.

    Returns
    -------
        float32 of the shape of ``counts``, and what was repaired.
    """
    if (white is None) == (i0 is None):
        raise UsageError("line_integrals: expected either the white field or i0")
    if i0 is not None and not 0 < i0 < float("inf"):
        raise UsageError(f"line_integrals: i0 must be positive, got {i0}")
    bins = counts.shape[-1]
    offset = _field(dark, bins, "dark")
    signal = counts.double() - offset
    beam = (
        torch.full((bins,), float(i0), dtype=torch.float64) if i0 is not None else _field(white, bins, "white") - offset
    )
    finite = torch.isfinite(signal)
    dead = ~(beam > 0) | ~torch.isfinite(beam) | ~finite.flatten(0, -2).any(0)
    if int(dead.sum()) > _DEAD_SHARE * bins:
        raise InputError(
            f"{int(dead.sum())} of {bins} detector bins have no signal (the white field is not above the dark one, or "
            "the samples are never finite); are the white and dark fields exchanged or those of another scan?"
        )
    bad = ~finite & ~dead
    if bool(bad.any()) and nonfinite == "error":
        *_, view, bin_ = bad.nonzero()[0].tolist()
        raise NumericalError(
            f"NaN or Inf at view {view}, bin {bin_} ({int(bad.sum())} in all); --nonfinite zero interpolates them"
        )
    ratio = signal / beam
    floor = _LEAST_PHOTONS / i0 if i0 is not None and i0 > 1 else _LEAST_TRANSMISSION
    live = ~(dead | bad)
    report = PrelogReport(
        clamped=int(((ratio <= 0) & live).sum()),
        above=int(((ratio > 1) & live).sum()),
        dead=int(dead.sum()),
        nonfinite=int(bad.sum()),
        samples=counts.numel(),
    )
    if report.clamped and report.clamped == int(live.sum()):
        raise EmptyDataError("not a single sample holds photons: there is nothing to reconstruct")
    y = -torch.log(torch.where(live, ratio, 1).clamp_min(floor))
    if report.dead or report.nonfinite:
        y = interpolate_bins(y, live.expand_as(y))
    return y.float(), report


def interpolate_bins(y: Tensor, live: Tensor) -> Tensor:
    """Return y (..., bins) with the samples that are not ``live`` interpolated linearly from the nearest that are."""
    bins = y.shape[-1]
    index = torch.arange(bins).expand_as(y)
    before = torch.where(live, index, -1).cummax(-1).values
    after = torch.where(live, index, bins).flip(-1).cummin(-1).values.flip(-1)
    before, after = torch.where(before < 0, after, before), torch.where(after >= bins, before, after)
    known = (before >= 0) & (before < bins) & (after < bins)
    left, right = y.gather(-1, before.clamp(0, bins - 1)), y.gather(-1, after.clamp(0, bins - 1))
    share = (index - before) / (after - before).clamp_min(1)
    filled = torch.where(known, left + share * (right - left), 0)
    return torch.where(live, y, filled)


def _field(field: Tensor | None, bins: int, name: str) -> Tensor:
    """Return a field as (bins,) float64; zeros where there is none."""
    if field is None:
        return torch.zeros(bins, dtype=torch.float64)
    if field.ndim not in (1, 2) or field.shape[-1] != bins or field.numel() == 0:
        raise InputError(
            f"the {name} field has shape {tuple(field.shape)}, expected ({bins},) or (fields, {bins}) for {bins} bins"
        )
    return field.double() if field.ndim == 1 else field.double().mean(0)
