"""Array files of every kind behind one face: what arrays are inside, and how to read one."""

import ast
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io import budget
from medrecon.io.hdf5 import Hdf5File
from medrecon.io.mat import is_mat5, is_mat73, mat5_variables, mat73_variables
from medrecon.io.readers.cfl import is_cfl, open_cfl

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_NPY_HEADER, _NPY_TEXT = 1 << 16, 10_000
_MEMBERS = 1024
# a sampling mask shrinks by more than this, so small arrays are left alone
_RATIO, _RATIO_FROM = 200, 16 << 20


@dataclass(frozen=True)
class Entry:
    """One array of a file: what is known before reading it.

    ``lazy`` says that ``read`` only maps the file; otherwise it takes ``nbytes`` of memory.
    """

    shape: tuple[int, ...]
    nbytes: int
    read: Callable[[], NDArray[Any]]
    lazy: bool = False


@dataclass(frozen=True)
class ArrayFile:
    """The numeric arrays of a file by name; a file that holds a single nameless one calls it ``""``."""

    path: Path
    kind: str
    entries: Mapping[str, Entry]

    def choose(self, key: str | None) -> tuple[str, Entry]:
        """Take the array called ``key``, or the only one there is."""
        listing = ", ".join(f"{name} {entry.shape}" for name, entry in list(self.entries.items())[:20])
        if key is not None:
            if key in self.entries:
                return key, self.entries[key]
            inside = listing if "" not in self.entries else "one array without a name: leave --key out"
            raise InputError(f"{self.path}: no array called {key!r}; the file holds {inside or 'no numeric array'}")
        several = {name: entry for name, entry in self.entries.items() if math.prod(entry.shape) > 1}
        candidates = several or self.entries
        if len(candidates) == 1:
            return next(iter(candidates.items()))
        if not candidates:
            raise InputError(f"{self.path}: holds no numeric array")
        raise InputError(f"{self.path}: holds several arrays; say which with --key: {listing}")


@contextmanager
def open_arrays(path: Path, *, hdf5: Hdf5File | None = None, max_bytes: int | None = None) -> Iterator[ArrayFile]:
    """List the arrays of a .npy, .npz, .mat, .cfl/.hdr or .h5 file, told apart by content.

    Parameters
    ----------
    hdf5
        The file, if it is opened already; otherwise one is opened and closed again.
    max_bytes
        Budget for the child process that reads HDF5.
    """
    head = _head(path)
    if head.startswith(NPY_MAGIC):
        yield ArrayFile(path, "npy", {"": _npy(path)})
    elif head.startswith(ZIP_MAGIC):
        yield ArrayFile(path, "npz", _npz(path))
    elif is_mat5(head):
        yield ArrayFile(path, "mat", _mat5(path))
    elif hdf5 is not None:
        yield _hdf5(hdf5, is_mat73(head))
    elif is_hdf5(head):
        opened = Hdf5File(path, max_bytes=max_bytes)
        try:
            yield _hdf5(opened, is_mat73(head))
        finally:
            opened.close()
    elif is_cfl(path):
        mapped = open_cfl(path)
        yield ArrayFile(path, "cfl", {"": Entry(mapped.shape, mapped.nbytes, lambda: mapped, lazy=True)})
    elif path.suffix in {".cfl", ".hdr"}:
        open_cfl(path)  # raises: says what is wrong with the pair
    elif head.startswith(b"MATLAB"):
        raise InputError(f"{path}: a MAT file of a version that is not read; save it in MATLAB with -v7 or -v7.3")
    else:
        raise InputError(f"{path}: not an array file; expected .npy, .npz, .mat (v5 to v7.3), .cfl/.hdr or .h5")


def load_array(path: Path, key: str | None = None, max_bytes: int | None = None) -> NDArray[Any]:
    """Read one numeric array from a .npy, .npz, .mat, .cfl/.hdr or .h5 file, told apart by content.

    Nothing is unpickled; sizes are checked before anything is read.

    Parameters
    ----------
    path
        The file; of a BART pair either half, or the name without ending.
    key
        Name of the array where the file holds several.
    max_bytes
        Largest size in bytes that may be read; None takes half of the free memory.

    Raises
    ------
    InputError
        When the file is of another kind, damaged, too large, or holds several arrays and no key is given.
    """
    limit = budget.resolve(max_bytes)
    with open_arrays(path, max_bytes=max_bytes) as file:
        name, entry = file.choose(key)
        budget.require(entry.nbytes, limit, path=path, what=f"array {name!r}" if name else "the array")
        return np.array(entry.read())


def parse_npy(head: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, Fortran order, dtype and offset of the samples, from the first 64 KiB of a .npy file."""
    # numpy's own parser falls back to tokenising headers of Python 2 and then raises almost anything
    start = 10 if head[6:7] == b"\x01" else 12
    length = int.from_bytes(head[8:start], "little")
    if length > _NPY_TEXT:
        raise InputError(f"{where}: the .npy header claims {length} bytes of text; a plain array has far less")
    try:
        text = ast.literal_eval(head[start : start + length].decode("utf-8" if head[6] > 2 else "latin1"))
        shape, fortran, dtype = text["shape"], text["fortran_order"], np.lib.format.descr_to_dtype(text["descr"])
    except (ValueError, TypeError, SyntaxError, LookupError, AttributeError, MemoryError, RecursionError) as error:
        raise InputError(f"{where}: damaged .npy header ({type(error).__name__})") from error
    if not isinstance(shape, tuple) or not all(type(size) is int for size in shape) or not isinstance(fortran, bool):
        raise InputError(f"{where}: damaged .npy header (no shape)")
    if dtype.hasobject:
        raise InputError(
            f"{where}: holds pickled Python objects, which may run code and are never loaded;"
            " save a plain numeric array instead"
        )
    if any(size < 0 for size in shape):
        raise InputError(f"{where}: negative length in the shape {shape}")
    return shape, fortran, dtype, start + length


def _npy(path: Path) -> Entry:
    shape, fortran, dtype, offset = parse_npy(_head(path, _NPY_HEADER), str(path))
    _numeric(dtype, str(path))
    nbytes = math.prod(shape) * dtype.itemsize
    found = path.stat().st_size - offset
    if nbytes != found:
        raise InputError(
            f"{path}: the header declares {shape} {dtype}, that is {nbytes} bytes, but {found} follow;"
            " the file is truncated or damaged"
        )

    def read() -> NDArray[Any]:
        if not nbytes:
            return np.empty(shape, dtype)
        order: Any = "F" if fortran else "C"
        mapped: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
        return mapped

    return Entry(shape, nbytes, read, lazy=True)


def _npz(path: Path) -> dict[str, Entry]:
    entries = {}
    for name, info, head in _members(path):
        shape, fortran, dtype, offset = parse_npy(head, f"{path}: {name}")
        if dtype.kind not in "biufc":
            continue
        nbytes = math.prod(shape) * dtype.itemsize
        if offset + nbytes != info.file_size:
            raise InputError(f"{path}: {name}: declares {shape} {dtype} but holds {info.file_size - offset} bytes")
        entries[name] = Entry(shape, nbytes, _npz_reader(path, info, offset, shape, dtype, fortran=fortran))
    return entries


def npz_text(path: Path, name: str) -> str | None:
    """Text stored under ``name`` in a .npz (one string, or a list of them joined by commas), if any."""
    for found, _, head in _members(path):
        if found == name:
            shape, _, dtype, offset = parse_npy(head, f"{path}: {name}")
            nbytes = math.prod(shape) * dtype.itemsize
            if dtype.kind in "US" and dtype.itemsize and offset + nbytes <= len(head):
                words = np.frombuffer(head, dtype, math.prod(shape), offset).tolist()
                return ",".join(word.decode("ascii", "replace") if isinstance(word, bytes) else word for word in words)
    return None


def _members(path: Path) -> Iterator[tuple[str, zipfile.ZipInfo, bytes]]:
    """Name, directory entry and first bytes of each array of a .npz, sizes checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                raise InputError(f"{path}: {len(members)} members; a .npz with more than {_MEMBERS} is not read")
            for info in members:
                if not info.filename.endswith(".npy"):
                    continue
                name = info.filename.removesuffix(".npy")
                if info.flag_bits & 1:
                    raise InputError(f"{path}: {name}: encrypted; save the array without a password")
                _check_ratio(path, name, info.file_size, info.compress_size)
                with archive.open(info) as file:
                    yield name, info, file.read(_NPY_HEADER)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged .npz archive ({type(error).__name__})") from error


def _npz_reader(
    path: Path, info: zipfile.ZipInfo, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran: bool
) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(info) as file:
                file.read(offset)
                data = file.read(info.file_size - offset)
            return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: {info.filename}: damaged and cannot be read ({type(error).__name__})") from error

    return read


def _mat5(path: Path) -> dict[str, Entry]:
    entries = {}
    for name, variable in mat5_variables(path).items():
        _check_ratio(path, name, variable.nbytes, variable.stored)
        entries[name] = Entry(variable.shape, variable.nbytes, variable.read)
    return entries


def _hdf5(file: Hdf5File, matlab: bool) -> ArrayFile:
    if matlab:
        variables = mat73_variables(file)
        return ArrayFile(file.path, "mat", {n: Entry(v.shape, v.nbytes, v.read) for n, v in variables.items()})
    entries = {
        name: Entry(info.shape, info.nbytes, partial(file.read, name))
        for name, info in file.datasets.items()
        if info.shape is not None and info.dtype is not None and info.dtype.kind in "biufc" and not info.is_text
    }
    return ArrayFile(file.path, "h5", entries)


def is_hdf5(head: bytes) -> bool:
    """Whether a file that starts so is HDF5 (the signature may stand behind a user block)."""
    return any(head[offset : offset + 8] == _HDF5_MAGIC for offset in (0, 512, 1024, 2048))


def _head(path: Path, count: int = 4096) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        if is_cfl(path):  # a BART name without its ending
            return b""
        raise InputError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from error


def _numeric(dtype: np.dtype[Any], where: str) -> None:
    if dtype.kind not in "biufc":
        raise InputError(f"{where}: holds {dtype}, expected numbers")


def _check_ratio(path: Path, name: str, declared: int, stored: int) -> None:
    if declared > max(_RATIO_FROM, _RATIO * stored):
        raise InputError(
            f"{path}: {name} declares {budget.human(declared)} but stores {budget.human(stored)}: more than {_RATIO}"
            " times as much, which looks like a decompression bomb"
        )
