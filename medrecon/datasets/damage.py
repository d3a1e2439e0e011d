"""Samples that cannot be read in the middle of training: replaced and counted, or the end."""

import logging
from collections.abc import Callable
from typing import Literal

import torch

from medrecon.datasets.batch import TrainingSample
from medrecon.errors import InputError

OnDamage = Literal["stop", "skip"]
_TRIES = 64
_log = logging.getLogger(__name__)


class Damage:
    """What to do about samples that cannot be read.

    Parameters
    ----------
    policy
        "stop" raises; "skip" goes on without.
    replace
        Whether "skip" takes another sample instead, as training needs where all processes have the same
        number of batches. Else the sample is None, for an average must not count its neighbour twice.
    """

    def __init__(self, policy: OnDamage, *, replace: bool) -> None:
        self.policy = policy
        self.replace = replace
        self._count = torch.zeros((), dtype=torch.int64).share_memory_()  # workers count too

    @property
    def count(self) -> int:
        """How many reads have failed so far, in all workers."""
        return int(self._count)

    def read(self, read: Callable[[int], TrainingSample], index: int, length: int) -> TrainingSample | None:
        """Return sample ``index``; where that fails the next one that can be read, or None.

        Raises
        ------
        InputError
            Of the sample, or where none of many can be read.
        """
        for step in range(_TRIES):
            try:
                return read((index + step) % length)
            except InputError as error:
                if self.policy == "stop":
                    raise
                self._count += 1
                _log.warning("left out: %s", error)
                if not self.replace:
                    return None
        raise InputError(f"{_TRIES} samples in a row cannot be read; is the drive still there?")
