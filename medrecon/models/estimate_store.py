"""The estimates of the published Directly Denoising Diffusion Model: stored, one for each training image."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.datasets.source import Source
from medrecon.errors import InputError, UsageError
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.models.estimates import Estimator, mixed

_Key = tuple[str, int, int]


class MemmapEstimateStore:
    r"""What f made of each image the last time it came, in half precision in a file.

    .. math:: x_0^{est} = \begin{cases} x_0^{(0)} & \text{with probability } p \text{, or where there is none yet} \\
        f(x_0^{est}, x_t, t) \text{ of the epoch before} & \text{else} \end{cases}

    (arXiv:2405.13540, algorithm 1, with p = 0). With p = 0 it leaks: after some epochs the stored estimate has seen
    its training image at every noise level, the network copies it, training loss falls below what is possible, and
    reconstruction, which begins with x_0^{(0)}, gets worse. Keep p well above 0, or recompute.

    A row belongs to a volume, a slice and an image of it (coil map sets, a stack of slices), whatever the order, the
    number of workers or the process. Rows are given out as images come, and listed in ``<file>.rows``, to which
    processes append under a lock; so all processes of one machine may share a store, and a run that is taken up
    finds it again. Each row is written by the process that holds the sample: where several hold the same one, the
    last wins. Several machines need a store each, or a file system with locks; after volumes were dealt out anew a
    machine may then find an older estimate, or none.

    The truth must be the same in every epoch: no random patches, mirroring, contrasts or phases. A store is no part
    of a saved model.

    Parameters
    ----------
    path
        The file, in numpy's format; made where it is missing. It is sparse: rows not yet written take no space.
    rows
        Images at most.
    shape
        Of an image of the network, (C, H, W).
    start_share
        p.

    Raises
    ------
    InputError
        Where the file is there and not such a store; when used, where the list of rows is damaged.
    UsageError
        For wrong numbers; when used, for sources that are missing or the same, images of another shape, or more of
        them than rows.

    Examples
    --------
    >>> import tempfile, torch
    >>> from medrecon.datasets import Source
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = MemmapEstimateStore(Path(folder) / "estimates.npy", 10, (1, 4, 4))
    ...     store.keep(torch.ones(1, 1, 4, 4), [Source("knee.h5", 7)])
    ...     estimates, known = store.read([Source("knee.h5", 8), Source("knee.h5", 7)])
    >>> known
    tensor([False,  True])
    """

    def __init__(self, path: str | Path, rows: int, shape: Sequence[int], *, start_share: float = 0.3) -> None:
        if rows < 1 or not shape or min(shape) < 1:
            raise UsageError(f"MemmapEstimateStore: expected rows and a shape from 1, got {rows} and {tuple(shape)}")
        if not 0 <= start_share <= 1:
            raise UsageError(f"MemmapEstimateStore: start_share lies between 0 and 1, got {start_share}")
        self.path = Path(path)
        self.start_share = start_share
        self._shape = (rows, *shape)
        self._table = self.path.with_name(f"{self.path.name}.rows")
        self._rows: dict[_Key, int] = {}
        self._read = 0  # bytes of the table
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self.path.is_file() or not self._table.is_file():
                create: Any = np.lib.format.open_memmap
                create(self.path, mode="w+", dtype=np.float16, shape=self._shape).flush()
                self._table.write_bytes(b"")
        self._data = self._opened()

    def __len__(self) -> int:
        """Return how many images have a row."""
        with self._locked():
            self._refresh()
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out: a copy, in a worker or of a model, maps the same file."""
        return {key: value for key, value in self.__dict__.items() if key != "_data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file again."""
        self.__dict__.update(state)
        self._data = self._opened()

    def read(self, sources: Sequence[Source], images: int = 1) -> tuple[Tensor, Tensor]:
        """Return what is stored, float32 (B', C, H, W), zero where nothing is, and where something is, (B',).

        Parameters
        ----------
        sources
            Of the samples of a batch.
        images
            Images of each sample, B' / B.
        """
        with self._locked():
            self._refresh()
        rows = [self._rows.get(key) for key in _keys(sources, images)]
        known = torch.tensor([row is not None for row in rows])
        values = np.zeros((len(rows), *self._shape[1:]), np.float32)
        for place, row in enumerate(rows):
            if row is not None:
                values[place] = self._data[row]
        return torch.from_numpy(values), known

    def contexts(
        self,
        f: Estimator,  # noqa: ARG002 (called an epoch ago)
        images: Tensor,
        start: Tensor,
        times: Tensor,  # noqa: ARG002 (a row serves all)
        scheduler: DDDMScheduler,  # noqa: ARG002
        sources: Sequence[Source],
    ) -> Tensor:
        """Return x_0^est, (B', C, H, W)."""
        stored, known = self.read(sources, self._each(images, sources))
        found = torch.where(known.reshape(-1, *[1] * (images.ndim - 1)).to(images.device), stored.to(images), start)
        return mixed(found, start, self.start_share)

    def keep(self, estimates: Tensor, sources: Sequence[Source]) -> None:
        """Store estimates (B', C, H, W), B' / B of each source."""
        keys = _keys(sources, self._each(estimates, sources))
        limit = float(np.finfo(np.float16).max)
        values = estimates.detach().float().clamp(-limit, limit).cpu().numpy()
        with self._locked():
            self._refresh()
            new = [key for key in keys if key not in self._rows]
            places = self._rows | {key: len(self._rows) + count for count, key in enumerate(new)}
            if len(places) > self._shape[0]:
                raise UsageError(
                    f"{self.path}: has {self._shape[0]} rows, which do not hold {len(places)} images; make a store "
                    "with more rows"
                )
            for key, value in zip(keys, values, strict=True):
                self._data[places[key]] = value
            if new:  # after the data: whoever finds a row in the table finds an estimate in it
                with self._table.open("ab") as table:
                    table.write("".join(f"{json.dumps(key)}\n" for key in new).encode())
                self._refresh()

    def _each(self, images: Tensor, sources: Sequence[Source]) -> int:
        """Return the images of a source, having looked at both."""
        if tuple(images.shape[1:]) != self._shape[1:]:
            raise UsageError(
                f"{self.path}: holds images {self._shape[1:]}, got {tuple(images.shape[1:])}; stored estimates need "
                "whole images of one shape, without random patches"
            )
        if not sources or len(images) % len(sources):
            raise UsageError(
                f"MemmapEstimateStore: {len(images)} images come with {len(sources)} sources; each sample of the batch "
                "must say where it is from"
            )
        if len(set(_keys(sources, 1))) < len(sources):
            twice = next(source for source in sources if list(sources).count(source) > 1)
            raise UsageError(
                f"MemmapEstimateStore: {twice} is in a batch more than once, or several samples have that name; give "
                "each slice a source of its own"
            )
        return len(images) // len(sources)

    def _opened(self) -> Any:  # noqa: ANN401 (numpy's memory map)
        try:
            data: Any = np.load(self.path, mmap_mode="r+", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: is no store of estimates ({error}); remove it, or name another") from error
        if data.dtype != np.float16 or data.shape != self._shape:
            raise InputError(
                f"{self.path}: holds {data.shape} {data.dtype}, expected {self._shape} float16; remove it, or name "
                "another file"
            )
        return data

    def _refresh(self) -> None:
        """Take in the rows that other processes have given out."""
        with self._table.open("rb") as table:
            table.seek(self._read)
            lines = table.read()
        for line in lines.splitlines():
            try:
                volume, number, image = json.loads(line)
            except ValueError as error:
                raise InputError(f"{self._table}: is damaged ({error}); remove it and {self.path.name}") from error
            self._rows[volume, number, image] = len(self._rows)
        self._read += len(lines)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _keys(sources: Sequence[Source], images: int) -> list[_Key]:
    return [(source.volume, source.slice, image) for source in sources for image in range(images)]
