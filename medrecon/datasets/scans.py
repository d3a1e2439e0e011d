"""Measured files that hold a reference image: sinograms, and what ``medrecon simulate`` writes."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from torch.utils.data import Dataset

from medrecon.datasets.batch import TrainingSample
from medrecon.datasets.damage import Damage, OnDamage
from medrecon.datasets.source import Source, distinct_names
from medrecon.errors import InputError
from medrecon.io.options import ReadOptions
from medrecon.io.registry import read_scan
from medrecon.io.scan import Scan
from medrecon.operators.base import LinearOperator

_OPEN = 4


class ScanDataset(Dataset[TrainingSample | None]):
    """Slices of measured files whose operator and reference image are known; nothing is simulated.

    Any format that states its operator: sinograms (Data Exchange, LoDoPaB-CT, ...) and medrecon's own files. For
    Cartesian k-space see :class:`~medrecon.datasets.FastMRIDataset`, which undersamples anew.

    Parameters
    ----------
    files
        Each with references in the units of its measurements.
    options
        How they are read.
    training
        Whether to replace what cannot be read.
    on_damage
        "stop" or "skip", see :class:`~medrecon.datasets.damage.Damage`.
    progress
        Called with the share of the files that have been opened.
    """

    def __init__(
        self,
        files: Sequence[Path],
        options: ReadOptions | None = None,
        *,
        training: bool,
        on_damage: OnDamage = "stop",
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self.damage = Damage(on_damage, replace=training)
        self._options = options or ReadOptions()
        self._open = lru_cache(_OPEN)(self._read_scan)
        self._names = distinct_names(files)
        self._items: list[tuple[Path, int]] = []
        self._shapes: list[tuple[int, ...]] = []
        for done, file in enumerate(files, start=1):
            scan = self._open(file)
            shape = (*scan.measurements.shape, *self._operator(scan).image_shape)
            self._items += [(file, index) for index in range(len(scan.measurements))]
            self._shapes += [shape] * len(scan.measurements)
            if progress is not None:
                progress(done / len(files))
        if not self._items:
            raise InputError("no files of measurements were found; expected sinograms with a reference image each")

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._items)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: what has been measured is the same in every epoch."""

    def volume_of(self, index: int) -> str:
        """Return which volume a sample belongs to."""
        return self._names[self._items[index][0]]

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return what samples of a batch need to have in common: the shapes of measurements and image."""
        return self._shapes[index]

    def __getitem__(self, index: int) -> TrainingSample | None:
        """Return a slice; see :class:`~medrecon.datasets.damage.Damage` for what happens to one that is damaged."""
        return self.damage.read(self._sample, index, len(self))

    def __getstate__(self) -> dict[str, object]:
        """Leave the open files behind: another process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take up what another process has sent."""
        self.__dict__.update(state)
        self._open = lru_cache(_OPEN)(self._read_scan)

    def _read_scan(self, file: Path) -> Scan:
        return read_scan(file, self._options)

    def _operator(self, scan: Scan) -> LinearOperator:
        if not isinstance(scan.acquisition, LinearOperator):
            raise InputError(f"{scan.source}: holds k-space, for which there is the data kind 'fastmri'")
        if scan.reference is None:
            raise InputError(f"{scan.source}: holds no reference image, so nothing can be learned from it")
        if tuple(scan.reference.shape) != scan.acquisition.image_shape[-2:]:
            raise InputError(
                f"{scan.source}: the reference has {scan.reference.shape} pixels, the operator "
                f"{scan.acquisition.image_shape}"
            )
        return scan.acquisition

    def _sample(self, index: int) -> TrainingSample:
        file, number = self._items[index]
        scan = self._open(file)
        operator = self._operator(scan)
        if scan.reference is None:  # for the type checker: _operator has refused it
            raise InputError(f"{file}: holds no reference image")
        target = scan.reference[number].expand(1, *operator.image_shape).to(operator.image_dtype)
        return TrainingSample(scan.measurements[number][None], operator, target, Source(self._names[file], number))
