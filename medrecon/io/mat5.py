"""Numeric arrays of MAT files of version 5 to 7, parsed here: scipy's reader crashes on damaged files.

The format is a list of tagged elements; a variable is a matrix element (flags, sizes, name, real part,
imaginary part), as it is or deflated. Lengths are checked against the file and against the sizes before
anything is read; cells, structs, text, sparse matrices and objects are passed over.
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.mat5_elements import (
    BLOCK,
    CLASSES,
    COMPRESSED,
    MATRIX,
    START,
    Damaged,
    elements,
    numbers,
    tag,
    word,
)  # fmt: skip

_LOGICAL, _COMPLEX = 0x0200, 0x0800
_HEAD = 4096
_AXES, _NAME = 32, 256


@dataclass(frozen=True)
class Mat5Variable:
    """A numeric array as the file announces it.

    ``start`` and ``length`` say where its element lies, ``data`` where in the (inflated) element the
    real part begins.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    length: int
    compressed: bool
    data: int
    order: str

    @property
    def nbytes(self) -> int:
        """Size of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_mat5(head: bytes) -> bool:
    """Whether a file that starts so is a MAT file of version 5 to 7."""
    return len(head) >= START and head[:6] == b"MATLAB" and head[124:128] in {b"\x00\x01IM", b"\x01\x00MI"}


def list_mat5(path: Path) -> dict[str, Mat5Variable]:
    """List the numeric arrays of a file; nothing but their headers is read."""
    found: dict[str, Mat5Variable] = {}
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            order = "<" if file.read(START)[126:128] == b"IM" else ">"
            for kind, start, length in elements(file, size, order):
                variable = _header(file, kind, start, length, order)
                if variable is not None:
                    found[variable.name] = variable
    except (Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged MAT file: {_reason(error)}; save it again") from error
    return found


def read_mat5(path: Path, variable: Mat5Variable) -> NDArray[Any]:
    """Read one array; the caller has checked its size."""
    try:
        with path.open("rb") as file:
            content = _content(file, variable, variable.data + variable.nbytes + 64)  # two tags and their padding
        count = math.prod(variable.shape)
        part, after = numbers(content, variable.data, count, variable.order)
        if variable.dtype.kind != "c":
            return part.astype(variable.dtype).reshape(variable.shape, order="F")
        array = np.empty(count, variable.dtype)
        array.real = part
        array.imag, _ = numbers(content, after, count, variable.order)
        return array.reshape(variable.shape, order="F")
    except (Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: variable {variable.name!r} is damaged: {_reason(error)}; save it again") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Damaged) else type(error).__name__


def _header(file: IO[bytes], kind: int, start: int, length: int, order: str) -> Mat5Variable | None:
    """Parse the header of a matrix element; None for what is no numeric array."""
    file.seek(start)
    content = file.read(min(length, _HEAD))
    if kind == COMPRESSED:
        content = zlib.decompressobj().decompress(content, _HEAD)
        if len(content) < 8 or word(content, 0, order) != MATRIX:
            return None
    at = 8 if kind == COMPRESSED else 0
    flags = word(content, at + 8, order)
    base = CLASSES.get(flags & 0xFF)
    if base is None:
        return None
    _, _, _, at = tag(content, at, order)
    _, size, data, at = tag(content, at, order)
    if size % 4 or size > 4 * _AXES or data + size > len(content):
        raise Damaged("a variable has an impossible number of axes")
    shape = tuple(np.frombuffer(content, f"{order}i4", size // 4, data).tolist())
    _, size, data, at = tag(content, at, order)
    if size > _NAME or data + size > len(content):
        raise Damaged("a variable has an impossible name")
    name = content[data : data + size].decode("ascii", "replace")
    if not name or not shape or any(axis < 0 for axis in shape):
        raise Damaged("a variable without name or with negative sizes")
    if 0 in shape:
        return None
    dtype = np.dtype(bool if flags & _LOGICAL else base)
    if flags & _COMPLEX:
        dtype = np.dtype(np.complex64 if base == "f4" else np.complex128)
    return Mat5Variable(name, shape, dtype, start, length, kind == COMPRESSED, at, order)


def _content(file: IO[bytes], variable: Mat5Variable, limit: int) -> bytes | bytearray:
    """Bytes of the element, inflated, never more than ``limit``."""
    file.seek(variable.start)
    if not variable.compressed:
        if variable.length > limit:
            raise Damaged("its element is longer than its sizes say")
        return file.read(variable.length)
    inflater, result, left = zlib.decompressobj(), bytearray(), variable.length
    while left > 0 and not inflater.eof:
        block = file.read(min(left, BLOCK))
        if not block:
            break
        left -= len(block)
        while block and len(result) <= limit:
            result += inflater.decompress(block, limit + 1 - len(result))
            block = inflater.unconsumed_tail
        if len(result) > limit:
            raise Damaged("it inflates to more than its sizes say")
    return result
