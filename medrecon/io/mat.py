"""MATLAB files of both kinds: version 5 to 7 (:mod:`medrecon.io.mat5`) and 7.3, which is HDF5."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from medrecon.io.hdf5 import Hdf5File
from medrecon.io.mat5 import is_mat5, list_mat5, read_mat5

__all__ = ["MatVariable", "is_mat5", "is_mat73", "mat5_variables", "mat73_variables"]

_NUMERIC = {
    "double", "single", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
}  # fmt: skip


class MatVariable(NamedTuple):
    """A numeric array: what the file announces, in MATLAB's order of the axes, and how to read it."""

    shape: tuple[int, ...]
    nbytes: int
    stored: int
    read: Callable[[], NDArray[Any]]


def is_mat73(head: bytes) -> bool:
    """Whether a file that starts so is a MAT file of version 7.3, an HDF5 file behind a text."""
    return head[:10] == b"MATLAB 7.3"


def mat5_variables(path: Path) -> dict[str, MatVariable]:
    """List the numeric arrays of a version 5 file; text, cells, structs and objects are left out."""
    return {
        name: MatVariable(found.shape, found.nbytes, found.length, partial(read_mat5, path, found))
        for name, found in list_mat5(path).items()
    }


def mat73_variables(file: Hdf5File) -> Mapping[str, MatVariable]:
    """List the numeric arrays of a version 7.3 file."""
    return {
        name: MatVariable(tuple(reversed(info.shape)), info.nbytes, info.stored_bytes, partial(_read73, file, name))
        for name, info in file.datasets.items()
        if "/" not in name and info.dtype is not None and info.dtype.kind in "biufc" and _is_numbers(file, name)
    }


def _read73(file: Hdf5File, name: str) -> NDArray[Any]:
    return file.read(name).transpose()  # HDF5 holds MATLAB's axes in reverse


def _is_numbers(file: Hdf5File, name: str) -> bool:
    # MATLAB stores text as uint16 and an empty array as its sizes; only attributes tell them from numbers
    marks = file.attributes.get(name, {})
    return marks.get("MATLAB_class", "double") in _NUMERIC and not marks.get("MATLAB_empty")
