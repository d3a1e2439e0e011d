"""The order of training: batches of equal shapes, volumes dealt out to processes, resumable anywhere."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import torch
from torch.utils.data import Sampler

from medrecon.errors import UsageError

_PRIME = 1_000_003


class Volumes(Protocol):
    """What the sampler needs to know of a data set."""

    def __len__(self) -> int:
        """Return the number of slices."""
        ...

    def volume_of(self, index: int) -> str:
        """Return which volume a slice belongs to."""
        ...

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return what slices of a batch need to have in common."""
        ...


class VolumeBatchSampler(Sampler[list[int]]):
    """Batches of slices of equal shape; each process reads volumes that no other reads in that epoch.

    The order depends on seed and epoch only, so a run can be taken up in the middle of an epoch (:meth:`skip`).

    In training every process gets ceil(slices / (batch size · processes)) batches in every epoch; a process whose
    volumes give fewer repeats some, one whose volumes give more leaves some out, others every time. In validation
    every slice is read exactly once, in order; processes may get different numbers of batches, even none.

    Parameters
    ----------
    data
        Slices, volumes and shapes.
    batch_size
        Slices in a batch; fewer where a shape does not fill it.
    training
        Whether to shuffle and to even out.
    seed
        Of the order.
    rank, world
        Number of this process, and how many there are.
    """

    def __init__(
        self, data: Volumes, batch_size: int, *, training: bool, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise UsageError(
                f"VolumeBatchSampler: expected batch_size >= 1 and 0 <= rank < world, got {batch_size}, "
                f"{rank} of {world}"
            )
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.rank = rank
        self.world = world
        self._volumes: dict[str, list[int]] = defaultdict(list)
        for index in range(len(data)):
            self._volumes[data.volume_of(index)].append(index)
        self._shapes = [data.shape_of(index) for index in range(len(data))]
        self._epoch = 0
        self._skip = 0

    def __len__(self) -> int:
        """Return the number of batches of this process in an epoch."""
        if self.training:
            return -(-len(self._shapes) // (self.batch_size * self.world))
        return len(self._batches(torch.Generator()))

    def set_epoch(self, epoch: int) -> None:
        """Choose another order."""
        self._epoch = epoch

    def skip(self, batches: int) -> None:
        """Leave out the first batches of the next pass: those that were trained on before an interruption."""
        self._skip = batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each batch."""
        batches = self._batches(torch.Generator().manual_seed(self.seed * _PRIME + self._epoch))
        if self.training and batches:
            count = len(self)
            batches = [batches[number % len(batches)] for number in range(count)]
        start, self._skip = self._skip, 0
        yield from batches[start:]

    def _batches(self, generator: torch.Generator) -> list[list[int]]:
        slices = self._mine(generator)
        if self.training:
            slices = [slices[place] for place in torch.randperm(len(slices), generator=generator).tolist()]
        batches: list[list[int]] = []
        filling: dict[tuple[int, ...], list[int]] = {}
        for index in slices:
            batch = filling.get(self._shapes[index])
            if batch is None or len(batch) == self.batch_size:
                batch = filling[self._shapes[index]] = []
                batches.append(batch)
            batch.append(index)
        if self.training:  # batches that did not fill as well: a rare shape would else be left out every time
            batches = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        return batches

    def _mine(self, generator: torch.Generator) -> list[int]:
        """Return the slices of this process: of whole volumes, the largest dealt out first, to who has fewest."""
        units = list(self._volumes.values())
        if self.training and len(units) < self.world:
            units = [[index] for index in range(len(self._shapes))]
            units *= -(-self.world // max(len(units), 1))  # with fewer slices than processes several read one
        if self.training:
            units = [units[place] for place in torch.randperm(len(units), generator=generator).tolist()]
        shares: list[list[list[int]]] = [[] for _ in range(self.world)]
        loads = [0] * self.world
        for unit in sorted(units, key=len, reverse=True):
            least = min(range(self.world), key=loads.__getitem__)
            shares[least].append(unit)
            loads[least] += len(unit)
        own = shares[self.rank] if self.training else sorted(shares[self.rank])
        return [index for unit in own for index in unit]
