"""The line masks of fastMRI, equal bit for bit: what is shared, and how a file name seeds them.

Published results are comparable only on the same lines, so the order of the draws from numpy's
``RandomState`` is part of the definition.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers import checks
from medrecon.operators.samplers.base import centre, centre_count, derived_seed, plane


class LineDraw(NamedTuple):
    """One drawn line mask and what a network may want to know of it.

    Parameters
    ----------
    mask
        bool ``(1, W)``.
    low_frequencies
        Number of fully sampled central lines.
    acceleration, center_fraction
        The nominal pair that was chosen for this draw.
    seed
        Seed of the ``RandomState``: an integer, or the characters of the file name.
    """

    mask: Tensor
    low_frequencies: int
    acceleration: float
    center_fraction: float
    seed: int | tuple[int, ...]


@dataclass(frozen=True)
class FastMRILines(ABC):
    """Base of fastMRI's line masks: a fully sampled centre plus lines outside it.

    Parameters
    ----------
    acceleration
        Nominal acceleration, or several of which each draw takes one.
    center_fraction
        Fraction of the lines that is fully sampled around zero frequency, one for each acceleration.
    allow_any_combination
        Choose acceleration and centre fraction independently instead of in pairs.
    offset
        First line of the regular patterns; None draws it.
    """

    acceleration: float | tuple[float, ...]
    center_fraction: float | tuple[float, ...]
    allow_any_combination: bool = False
    offset: int | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        accelerations, fractions = _several(self.acceleration), _several(self.center_fraction)
        for acceleration in accelerations:
            self._check_acceleration(checks.real(owner, "acceleration", acceleration, 1))
        for fraction in fractions:
            checks.real(owner, "center_fraction", fraction, 0, 1)
        checks.flag(owner, "allow_any_combination", self.allow_any_combination)
        if not accelerations or not fractions:
            raise UsageError(f"{owner}: acceleration and center_fraction need at least one entry")
        if self.allow_any_combination:
            pairs = list(product(accelerations, fractions))
        elif len(accelerations) == len(fractions):
            pairs = list(zip(accelerations, fractions, strict=True))
        else:
            raise UsageError(
                f"{owner}: {len(accelerations)} accelerations and {len(fractions)} center fractions do not pair up; "
                f"give as many of both, or set allow_any_combination"
            )
        for acceleration, fraction in pairs:
            checks.feasible(owner, acceleration, fraction)
        if self.offset is not None and (isinstance(self.offset, bool) or not isinstance(self.offset, int)):
            raise UsageError(f"{owner}: offset must be a whole number or absent, got {self.offset!r}")
        if self.offset is not None and self.offset < 0:
            raise UsageError(f"{owner}: offset counts lines from the first, got {self.offset}")
        object.__setattr__(self, "acceleration", accelerations)
        object.__setattr__(self, "center_fraction", fractions)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask, bool ``(1, W)``; the generator gives the seed of the ``RandomState``."""
        return self.draw_details(shape, derived_seed(generator)).mask

    def draw_for_file(self, shape: tuple[int, int], filename: str | Path) -> Tensor:
        """Draw the mask that fastMRI gives this file for validation: seeded by its name with suffix."""
        return self.draw_details(shape, tuple(map(ord, Path(filename).name))).mask

    def draw_details(self, shape: tuple[int, int], seed: int | tuple[int, ...]) -> LineDraw:
        """Draw one mask from a ``RandomState`` with this seed and tell how it came about."""
        _, width = plane(shape)
        random = np.random.RandomState(seed)
        acceleration, fraction = self._choose(random)
        low = self._low_frequencies(width, acceleration, fraction)
        lines = np.asarray(self._lines(width, acceleration, low, random), dtype=bool)
        lines[centre(width, low)] = True
        if not lines.any():
            raise UsageError(
                f"{type(self).__name__}: no line of {width} is sampled at acceleration {acceleration:g}; "
                f"lower acceleration or raise center_fraction"
            )
        return LineDraw(torch.from_numpy(lines)[None], low, acceleration, fraction, seed)

    def _choose(self, random: np.random.RandomState) -> tuple[float, float]:
        accelerations, fractions = _several(self.acceleration), _several(self.center_fraction)
        if self.allow_any_combination:
            fraction = fractions[int(random.choice(len(fractions)))]
            return accelerations[int(random.choice(len(accelerations)))], fraction
        index = int(random.randint(len(fractions)))  # drawn even for one entry: it advances the stream
        return accelerations[index], fractions[index]

    def _low_frequencies(self, width: int, acceleration: float, fraction: float) -> int:
        low = centre_count(type(self).__name__, width, fraction)
        if low * acceleration >= width:
            checks.feasible(type(self).__name__, acceleration, low / width)
        return low

    def _check_acceleration(self, acceleration: float) -> None:  # noqa: B027 - a hook, not every mask restricts it
        """Refuse accelerations that the pattern cannot have."""

    @abstractmethod
    def _lines(self, width: int, acceleration: float, low: int, random: np.random.RandomState) -> NDArray[np.bool_]:
        """Return the lines outside the centre (those inside do not matter)."""


def _several(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (cast("float", value),)
