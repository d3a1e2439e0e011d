"""Find the fully sampled centre of a k-space, read off the data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.errors import InputError, NumericalError, UsageError

# The echo may peak a few samples off N//2 (gradient delays, off-centre readouts); farther off, a peak is an artefact.
_PEAK_SEARCH = 4
LEAST_CALIBRATION = 8
"""Shortest side in samples from which maps are worth an estimate."""


@dataclass(frozen=True, slots=True)
class CalibrationRegion:
    """A rectangle of k-space, as half-open index ranges [start, stop) along the two axes.

    Parameters
    ----------
    start
        First sample along (H, W).
    stop
        One past the last sample along (H, W).
    """

    start: tuple[int, int]
    stop: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Samples along (H, W)."""
        return self.stop[0] - self.start[0], self.stop[1] - self.start[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in the last two axes."""
        return slice(self.start[0], self.stop[0]), slice(self.start[1], self.stop[1])

    def extract(self, kspace: Tensor) -> Tensor:
        """Return the samples of the rectangle as a view: (..., H, W) -> (..., h, w)."""
        rows, columns = self.slices
        return kspace[..., rows, columns]


def find_calibration_region(
    kspace: Tensor,
    mask: Tensor | None = None,
    *,
    max_size: int | tuple[int, int] = 24,
    min_size: int | tuple[int, int] = 12,
) -> CalibrationRegion:
    """Find the largest fully sampled rectangle around the centre of one slice's k-space.

    The rectangle R maximises |R| over all R that contain the energy peak p (within 4 samples of N//2), have every
    sample measured, and are at most ``max_size`` long; of equal ones, the one closest to being centred on p.
    A sample counts as measured where any coil is not exactly zero, or, with ``mask``, where the mask says so and
    its row and column are not zero throughout (zero-padded borders are often missing from masks).

    Parameters
    ----------
    kspace
        One slice (coils, H, W), DC at N//2, any unit.
    mask
        Sampling pattern, nonzero where measured, broadcastable to (H, W), for example (1, W).
    max_size
        Longest side in samples, one number or one per axis.
    min_size
        Shortest side in samples that is still accepted, one number or one per axis.

    Returns
    -------
    CalibrationRegion
        The rectangle; its sides may be odd and off N//2.

    Raises
    ------
    InputError
        Where no rectangle of ``min_size`` is fully sampled, or shapes do not fit.
    NumericalError
        Where the k-space has NaN or Inf, or no energy.
    UsageError
        Where the sizes contradict each other.

    Notes
    -----
    The region does not have to be symmetric: partial Fourier data and a shifted echo give an asymmetric one, and the
    maps do not mind, since a shift of the region multiplies all coils by the same phase.

    Examples
    --------
    >>> kspace = torch.zeros(2, 64, 64, dtype=torch.complex64)
    >>> kspace[:, :, 22:42] = 1
    >>> find_calibration_region(kspace).shape
    (24, 20)
    """
    longest, shortest = _per_axis(max_size, "max_size"), _per_axis(min_size, "min_size")
    if any(low > high for low, high in zip(shortest, longest, strict=True)):
        raise UsageError(f"find_calibration_region: min_size {shortest} is larger than max_size {longest}")
    sampled = _sampled(kspace, mask)
    peak = _peak(sampled, kspace)
    best = _largest_rectangle(sampled, peak, longest, shortest)
    if best is None:
        found = _largest_rectangle(sampled, peak, longest, (1, 1))
        height, width = found.shape if found is not None else (0, 0)
        raise InputError(
            f"no fully sampled calibration region found (centre is {height}x{width} samples; coil calibration needs at "
            f"least {shortest[0]}x{shortest[1]}, DC expected at N//2 = {tuple(n // 2 for n in sampled.shape)}). "
            "Pass --maps FILE, --calibration FILE or --method rss."
        )
    return best


def _per_axis(size: int | tuple[int, int], name: str) -> tuple[int, int]:
    """Spell a size out per axis."""
    pair = (size, size) if isinstance(size, int) else size
    if len(pair) != 2 or min(pair) < 1:
        raise UsageError(f"find_calibration_region: {name} must be one or two positive integers, got {size}")
    return pair


def _sampled(kspace: Tensor, mask: Tensor | None) -> Tensor:
    """Return where (H, W) was measured, on the CPU: the search over it is a loop."""
    if kspace.ndim != 3 or not kspace.is_complex() or kspace.numel() == 0:
        raise InputError(
            "find_calibration_region: expected the complex k-space of one slice (coils, H, W), got shape "
            f"{tuple(kspace.shape)} and dtype {kspace.dtype}"
        )
    # Not an energy: squares of small values underflow to "not measured".
    largest = torch.view_as_real(kspace.detach().resolve_conj()).abs().amax((0, -1))
    if not bool(largest.isfinite().all()):
        raise NumericalError("find_calibration_region: the k-space holds NaN or Inf; check the reader and the raw file")
    if not bool(largest.any()):
        raise NumericalError("find_calibration_region: the k-space is zero everywhere; there is nothing to calibrate")
    measured = largest > 0
    if mask is not None:
        try:
            pattern = (mask.to(largest.device) != 0).expand(largest.shape)
        except RuntimeError as error:
            raise InputError(
                f"find_calibration_region: a mask of shape {tuple(mask.shape)} does not broadcast to the k-space's "
                f"{tuple(largest.shape)}"
            ) from error
        measured = pattern & measured.any(1, keepdim=True) & measured.any(0, keepdim=True)
    return measured.cpu()


def _peak(sampled: Tensor, kspace: Tensor) -> tuple[int, int]:
    """Find the strongest measured sample near N//2."""
    height, width = sampled.shape
    top, left = max(0, height // 2 - _PEAK_SEARCH), max(0, width // 2 - _PEAK_SEARCH)
    window = slice(top, height // 2 + _PEAK_SEARCH + 1), slice(left, width // 2 + _PEAK_SEARCH + 1)
    energy = kspace.detach()[:, *window].to(torch.complex128).abs().square().sum(0).cpu()
    strength = torch.where(sampled[window], energy, -1.0)
    row, column = divmod(int(strength.argmax()), strength.shape[1])
    return top + row, left + column


def _largest_rectangle(
    sampled: Tensor, peak: tuple[int, int], longest: tuple[int, int], shortest: tuple[int, int]
) -> CalibrationRegion | None:
    """Maximise the area of a fully sampled rectangle around the peak, by trying every range of rows."""
    row, column = peak
    run = sampled.to(torch.int64)
    # Per row, how many samples in a row are measured from the peak's column to the left and to the right.
    left = run[:, : column + 1].flip(1).cumprod(1).sum(1).tolist()
    right = run[:, column:].cumprod(1).sum(1).tolist()
    best: tuple[int, int, CalibrationRegion] | None = None
    for first in range(max(0, row - longest[0] + 1), row + 1):
        reach_left, reach_right = min(left[first : row + 1]), min(right[first : row + 1])
        for last in range(row, min(len(left), first + longest[0])):
            reach_left, reach_right = min(reach_left, left[last]), min(reach_right, right[last])
            width, height = min(reach_left + reach_right - 1, longest[1]), last - first + 1
            if width < shortest[1]:
                break
            if height < shortest[0]:
                continue
            begin = min(max(column - width // 2, column - reach_left + 1), column + reach_right - width)
            off_centre = abs(first + height // 2 - row) + abs(begin + width // 2 - column)
            if best is None or (height * width, -off_centre) > best[:2]:
                best = height * width, -off_centre, CalibrationRegion((first, begin), (last + 1, begin + width))
    return None if best is None else best[2]
