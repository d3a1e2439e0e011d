"""What a sample draws: the same whatever process reads it, and in whatever order."""

import torch

_PRIME = 1_000_003


class Draws:
    """One generator for every seed, epoch and index.

    Parameters
    ----------
    seed
        Of the data set.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Draw other numbers from now on, in running workers as well."""
        self._epoch.fill_(epoch)

    def generator(self, index: int) -> torch.Generator:
        """Return the generator of a sample."""
        number = (self._seed * _PRIME + int(self._epoch)) * _PRIME + index
        return torch.Generator().manual_seed(number % 2**63)
