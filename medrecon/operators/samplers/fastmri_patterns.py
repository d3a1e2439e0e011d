"""The five line patterns of fastMRI; parameters and seeding are those of :class:`FastMRILines`."""

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import UsageError
from medrecon.operators.samplers.fastmri import FastMRILines


class RandomLines(FastMRILines):
    """Lines sampled independently, so that the expected acceleration is the nominal one (fastMRI's knee).

    >>> import torch
    >>> RandomLines(4, 0.08).draw((640, 368), torch.Generator().manual_seed(0)).shape
    torch.Size([1, 368])
    """

    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        probability = (width / acceleration - low) / (width - low)
        return random.uniform(size=width) < probability


class EquispacedLines(FastMRILines):
    """Every ``acceleration``-th line; the centre comes on top, so the true acceleration is lower."""

    def _check_acceleration(self, acceleration: float) -> None:
        _whole(type(self).__name__, acceleration, "equispaced-fraction")

    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        del low
        step = int(acceleration)
        lines = np.zeros(width, dtype=bool)
        lines[self._first(step, random) :: step] = True
        return lines

    def _first(self, step: int, random: np.random.RandomState) -> int:
        return int(random.randint(0, step)) if self.offset is None else self.offset


class EquispacedFractionLines(FastMRILines):
    """Equally spaced lines, spread so that with the centre the acceleration is met (fastMRI's brain)."""

    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        step = acceleration * (low - width) / (low * acceleration - width)
        first = random.randint(0, round(step)) if self.offset is None else self.offset
        lines = np.zeros(width, dtype=bool)
        # the bound leaves the last line out; so does fastMRI
        lines[np.around(np.arange(first, width - 1, step)).astype(int)] = True
        return lines


class MagicLines(EquispacedLines):
    """Equispaced lines whose two halves interleave under conjugate symmetry."""

    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        del low
        return _magic(width, int(acceleration), self._first(int(acceleration), random))

    def _check_acceleration(self, acceleration: float) -> None:
        _whole(type(self).__name__, acceleration, "magic-fraction")


class MagicFractionLines(FastMRILines):
    """Magic lines, spaced so that with the centre the acceleration is met."""

    def _low_frequencies(self, width: int, acceleration: float, fraction: float) -> int:
        total = round(width / acceleration)
        low = max(min(round(width * fraction), total), 1)
        if total <= low:
            raise UsageError(
                f"{type(self).__name__}: acceleration {acceleration:g} leaves {total} of {width} lines and the centre "
                f"takes them all; lower center_fraction ({fraction:g}) or acceleration"
            )
        return low

    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        step = round(width / (round(width / acceleration) - low))
        first = int(random.randint(0, step)) if self.offset is None else self.offset
        return _magic(width, step, first)


def _magic(width: int, step: int, offset: int) -> NDArray[np.bool_]:
    """Fill the two halves of k-space so that mirroring one puts its lines between those of the other."""
    positive_first, negative_first = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    positive = np.zeros((width + 1) // 2, dtype=bool)
    negative = np.zeros(width // 2, dtype=bool)
    positive[positive_first::step] = True
    negative[negative_first::step] = True
    return np.fft.fftshift(np.concatenate([positive, negative[::-1]]))


def _whole(owner: str, acceleration: float, alternative: str) -> None:
    if acceleration != int(acceleration):
        raise UsageError(
            f"{owner}: lines at a fixed distance need a whole acceleration, got {acceleration:g}; "
            f"round it or use the sampler {alternative}"
        )
