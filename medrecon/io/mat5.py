"""Numeric arrays of MAT files of version 5 to 7, parsed here: scipy's reader crashes on damaged files.

The format is a list of tagged elements; a variable is a matrix element (flags, sizes, name, real part,
imaginary part), as it is or deflated. Lengths are checked against the file and against the sizes before
anything is read; cells, structs, text, sparse matrices and objects are passed over.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError

_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_LOGICAL, _COMPLEX = 0x0200, 0x0800
_START = 128
_HEAD = 4096
_BLOCK = 1 << 16
_VARIABLES, _AXES, _NAME = 10_000, 32, 256


class _Damaged(Exception):  # noqa: N818 -- never leaves this module
    """The bytes are no MAT file."""


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
    return len(head) >= _START and head[:6] == b"MATLAB" and head[124:128] in {b"\x00\x01IM", b"\x01\x00MI"}


def list_mat5(path: Path) -> dict[str, Mat5Variable]:
    """List the numeric arrays of a file; nothing but their headers is read."""
    found: dict[str, Mat5Variable] = {}
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            order = "<" if file.read(_START)[126:128] == b"IM" else ">"
            for kind, start, length in _elements(file, size, order):
                variable = _header(file, kind, start, length, order)
                if variable is not None:
                    found[variable.name] = variable
    except (_Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged MAT file: {_reason(error)}; save it again") from error
    return found


def read_mat5(path: Path, variable: Mat5Variable) -> NDArray[Any]:
    """Read one array; the caller has checked its size."""
    try:
        with path.open("rb") as file:
            content = _content(file, variable, variable.data + variable.nbytes + 64)  # two tags and their padding
        count = math.prod(variable.shape)
        part, after = _numbers(content, variable.data, count, variable.order)
        if variable.dtype.kind != "c":
            return part.astype(variable.dtype).reshape(variable.shape, order="F")
        array = np.empty(count, variable.dtype)
        array.real = part
        array.imag, _ = _numbers(content, after, count, variable.order)
        return array.reshape(variable.shape, order="F")
    except (_Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: variable {variable.name!r} is damaged: {_reason(error)}; save it again") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Damaged) else type(error).__name__


def _elements(file: IO[bytes], size: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Kind, start and length of the elements that can be variables."""
    at, count = _START, 0
    while at + 8 <= size:
        file.seek(at)
        tag = file.read(8)
        kind, length = _word(tag, 0, order), _word(tag, 4, order)
        if at + 8 + length > size:
            raise _Damaged("it is truncated")
        count += 1
        if count > _VARIABLES:
            raise _Damaged(f"more than {_VARIABLES} variables")
        if kind in {_MATRIX, _COMPRESSED}:
            yield kind, at + 8, length
        at += 8 + length


def _header(file: IO[bytes], kind: int, start: int, length: int, order: str) -> Mat5Variable | None:
    """Parse the header of a matrix element; None for what is no numeric array."""
    file.seek(start)
    content = file.read(min(length, _HEAD))
    if kind == _COMPRESSED:
        content = zlib.decompressobj().decompress(content, _HEAD)
        if len(content) < 8 or _word(content, 0, order) != _MATRIX:
            return None
    at = 8 if kind == _COMPRESSED else 0
    flags = _word(content, at + 8, order)
    base = _CLASSES.get(flags & 0xFF)
    if base is None:
        return None
    _, _, _, at = _tag(content, at, order)
    _, size, data, at = _tag(content, at, order)
    if size % 4 or size > 4 * _AXES or data + size > len(content):
        raise _Damaged("a variable has an impossible number of axes")
    shape = tuple(np.frombuffer(content, f"{order}i4", size // 4, data).tolist())
    _, size, data, at = _tag(content, at, order)
    if size > _NAME or data + size > len(content):
        raise _Damaged("a variable has an impossible name")
    name = content[data : data + size].decode("ascii", "replace")
    if not name or not shape or any(axis < 0 for axis in shape):
        raise _Damaged("a variable without name or with negative sizes")
    if 0 in shape:
        return None
    dtype = np.dtype(bool if flags & _LOGICAL else base)
    if flags & _COMPLEX:
        dtype = np.dtype(np.complex64 if base == "f4" else np.complex128)
    return Mat5Variable(name, shape, dtype, start, length, kind == _COMPRESSED, at, order)


def _content(file: IO[bytes], variable: Mat5Variable, limit: int) -> bytes | bytearray:
    """Bytes of the element, inflated, never more than ``limit``."""
    file.seek(variable.start)
    if not variable.compressed:
        if variable.length > limit:
            raise _Damaged("its element is longer than its sizes say")
        return file.read(variable.length)
    inflater, result, left = zlib.decompressobj(), bytearray(), variable.length
    while left > 0 and not inflater.eof:
        block = file.read(min(left, _BLOCK))
        if not block:
            break
        left -= len(block)
        while block and len(result) <= limit:
            result += inflater.decompress(block, limit + 1 - len(result))
            block = inflater.unconsumed_tail
        if len(result) > limit:
            raise _Damaged("it inflates to more than its sizes say")
    return result


def _numbers(content: bytes | bytearray, at: int, count: int, order: str) -> tuple[NDArray[Any], int]:
    """Numbers of the part at ``at`` and where the next part begins."""
    kind, size, data, after = _tag(content, at, order)
    dtype = np.dtype(order + _STORED[kind]) if kind in _STORED else None
    if dtype is None or size != count * dtype.itemsize or data + size > len(content):
        raise _Damaged("its values do not match its sizes")
    return np.frombuffer(content, dtype, count, data), after


def _tag(content: bytes | bytearray, at: int, order: str) -> tuple[int, int, int, int]:
    """Kind, length and start of the data of a sub-element, and where the next one begins."""
    word = _word(content, at, order)
    if word >> 16:  # up to four bytes of data share the tag's eight
        if word >> 16 > 4:
            raise _Damaged("an impossible tag")
        return word & 0xFFFF, word >> 16, at + 4, at + 8
    size = _word(content, at + 4, order)
    return word, size, at + 8, at + 8 + size + -size % 8


def _word(content: bytes | bytearray, at: int, order: str) -> int:
    if at + 4 > len(content):
        raise _Damaged("it is truncated")
    return int.from_bytes(content[at : at + 4], "little" if order == "<" else "big")
