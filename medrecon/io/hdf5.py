"""HDF5 files from anywhere, read in a child process with limits (``_hdf5_worker.py``)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io._hdf5_process import Hdf5Process, Limits, Refusal, dtype_from_json
from medrecon.io.budget import human, require, resolve

Selection = tuple[int | slice, ...]
Attribute = str | int | float | bool | list[str | int | float | bool]


@dataclass(frozen=True)
class DatasetInfo:
    """What a file declares about one dataset; nothing of its values was read for it.

    Parameters
    ----------
    shape
        Lengths of the axes; () for a scalar and for an empty dataset.
    dtype
        Of the array that :meth:`Hdf5File.read` returns (native byte order, real/imaginary pairs as
        complex); None for types that it does not read (texts of variable length, references, …).
    is_text
        Whether the elements are strings (:meth:`Hdf5File.read_text`).
    fields
        Names of the fields of a compound type.
    nbytes, stored_bytes
        Size as declared, and what the file really holds for it.
    chunks
        Shape of the storage chunks, None for contiguous storage.
    refused
        Why the values will not be read, None where they will.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    is_text: bool
    fields: tuple[str, ...]
    nbytes: int
    stored_bytes: int
    chunks: tuple[int, ...] | None
    refused: str | None


@dataclass(frozen=True)
class IsmrmrdAcquisitions:
    """The acquisition table of an ISMRMRD file.

    Acquisition ``i`` has header ``heads[i]``, samples ``samples[offsets[i]:offsets[i + 1]]`` to be
    reshaped to (active_channels, number_of_samples), and trajectory
    ``trajectory[trajectory_offsets[i]:trajectory_offsets[i + 1]]`` to be reshaped to
    (number_of_samples, trajectory_dimensions).
    """

    heads: NDArray[Any]
    samples: NDArray[np.complex64]
    offsets: NDArray[np.int64]
    trajectory: NDArray[np.float32]
    trajectory_offsets: NDArray[np.int64]


class Hdf5File:
    """An HDF5 file, opened in a child process.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Largest number of bytes that one call may read; None takes half of the free memory.
    limits
        Bounds on time, objects and texts.

    Notes
    -----
    The child starts at the first request. Links and datasets that lead into other files, unknown
    filters, bombs and anything larger than the budget are refused with :class:`InputError`.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self.max_bytes = resolve(max_bytes)
        self._process = Hdf5Process(path.absolute(), self.max_bytes, limits or Limits())

    @cached_property
    def datasets(self) -> Mapping[str, DatasetInfo]:
        """Datasets by full name without the leading slash, e.g. ``dataset/data``."""
        return MappingProxyType({name: _info(described) for name, described in self._index["datasets"].items()})

    @cached_property
    def refused(self) -> Mapping[str, str]:
        """Names that lead nowhere good (links into other files, damaged objects), with the reason."""
        return MappingProxyType({name: str(reason) for name, reason in self._index["refused"].items()})

    @cached_property
    def attributes(self) -> Mapping[str, Mapping[str, Attribute]]:
        """Short attributes of each object that has any; the root's stand under the empty name."""
        found, _ = self._ask("attributes")
        return MappingProxyType({name: MappingProxyType(values) for name, values in found.items()})

    @cached_property
    def _index(self) -> dict[str, Any]:
        index, _ = self._ask("index")
        return dict(index)

    def read(self, name: str, selection: Selection = ()) -> NDArray[Any]:
        """Values of a dataset, or of the part that ``selection`` (integers and slices) picks.

        Parameters
        ----------
        name
            As in :attr:`datasets`.
        selection
            As for NumPy, with positive steps; an integer drops its axis.
        """
        info = self.info(name)
        if info.dtype is None:
            kind = "a text" if info.is_text else "of a type that is not numeric"
            raise InputError(f"{self.path}: dataset '{shown(name)}' is {kind}, expected numbers")
        parts = _parts(selection, info.shape, name)
        shape = tuple(len(range(*part)) for part in parts if isinstance(part, list))
        nbytes = math.prod(shape) * info.dtype.itemsize
        require(nbytes, self.max_bytes, path=self.path, what=f"dataset '{shown(name)}'")
        touched = min(info.nbytes, _touched(parts, info)) if info.chunks else nbytes
        _, arrays = self._ask("read", name, selection=parts, nbytes=touched)
        (array,) = arrays
        if array.shape != shape or array.dtype != info.dtype:
            raise InputError(f"{self.path}: dataset '{shown(name)}' changed while it was read; copy the file and retry")
        return array

    def read_text(self, name: str) -> str:
        """Text of a string dataset with one element; longer ones than 1 MiB are refused."""
        self.info(name)
        text, _ = self._ask("text", name)
        return str(text)

    def read_ismrmrd(self, group: str = "dataset") -> IsmrmrdAcquisitions:
        """Acquisitions of the ISMRMRD table ``group``/data."""
        name = f"{group}/data" if group else "data"
        info = self.info(name)
        _, arrays = self._ask("ismrmrd", group, nbytes=max(self.path.stat().st_size, info.nbytes))
        return IsmrmrdAcquisitions(*arrays)

    def close(self) -> None:
        """End the child process; a later request starts another."""
        self._process.close()

    def __enter__(self) -> "Hdf5File":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def info(self, name: str) -> DatasetInfo:
        """Return what the file declares about a dataset that has to be there."""
        info = self.datasets.get(name)
        if info is None:
            reason = self.refused.get(name, "is not in the file")
            held = ", ".join(shown(other) for other in list(self.datasets)[:20]) or "none"
            raise InputError(f"{self.path}: '{shown(name)}' {reason}; datasets found: {held}")
        return info

    def _ask(
        self, operation: str, name: str = "", *, selection: list[int | list[int]] | None = None, nbytes: int = 0
    ) -> tuple[Any, list[NDArray[Any]]]:
        request = {"op": operation, "name": name, "selection": selection}
        try:
            return self._process.ask(request, nbytes=nbytes)
        except Refusal as refusal:
            raise InputError(self._wording(refusal, name)) from None

    def _wording(self, refusal: Refusal, name: str) -> str:
        subject = f"{self.path}: '{shown(name)}'" if name else f"{self.path}"
        match refusal.kind:
            case "refused":
                return f"{subject} {refusal}; if you trust the file, put its data into a plain one (e.g. with h5repack)"
            case "budget":
                size, most = human(int(str(refusal))), human(self.max_bytes)
                return f"{subject} needs {size}, more than the {most} that may be read; raise --max-bytes"
            case "memory":
                return (
                    f"{subject} made the HDF5 library ask for more memory than the budget of {human(self.max_bytes)}; "
                    "the file is corrupt, or raise --max-bytes"
                )
            case "start":
                return f"{self.path} is an HDF5 file, but {refusal}; install it with: pip install h5py"
            case _:
                return (
                    f"{subject} could not be read: the file is truncated or corrupt (the HDF5 library gave up with "
                    f"{refusal}); copy it again from its source"
                )


def shown(name: str) -> str:
    """Name from a file, fit for a message: printable and short."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= 80 else text[:77] + "..."


def _info(described: dict[str, Any]) -> DatasetInfo:
    shape, chunks, dtype = described["shape"], described["chunks"], described["dtype"]
    return DatasetInfo(
        shape=tuple(shape or ()),
        dtype=None if dtype is None or shape is None else dtype_from_json(dtype),
        is_text=described["text"],
        fields=tuple(described["fields"]),
        nbytes=described["nbytes"],
        stored_bytes=described["stored"],
        chunks=None if chunks is None else tuple(chunks),
        refused=described["refused"],
    )


def _parts(selection: Selection, shape: tuple[int, ...], name: str) -> list[int | list[int]]:
    """One entry an axis: an index, or [start, stop, step] with all three known."""
    if len(selection) > len(shape):
        raise IndexError(f"{len(selection)} indices for dataset '{shown(name)}' of shape {shape}")
    parts: list[int | list[int]] = []
    for axis, length in enumerate(shape):
        part = selection[axis] if axis < len(selection) else slice(None)
        if isinstance(part, slice):
            start, stop, step = part.indices(length)
            if step < 1:
                raise IndexError(f"slices of dataset '{shown(name)}' need a positive step, got {part}")
            parts.append([start, max(start, stop), step])
        else:
            index = part + length if part < 0 else part
            if not 0 <= index < length:
                raise IndexError(f"index {part} on axis {axis} of dataset '{shown(name)}' of shape {shape}")
            parts.append(int(index))
    return parts


def _touched(parts: list[int | list[int]], info: DatasetInfo) -> int:
    """Bytes in the storage chunks that a selection reaches: what the library really has to read."""
    count = 1
    for part, chunk in zip(parts, info.chunks or (), strict=True):
        first, last = (part[0], max(part[0], part[1] - 1)) if isinstance(part, list) else (part, part)
        count *= (last // chunk - first // chunk + 1) * chunk
    return count * (info.dtype.itemsize if info.dtype else 1)
