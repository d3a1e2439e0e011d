"""The tagged elements of which MAT files of version 5 to 7 consist."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
START = 128
BLOCK = 1 << 16
VARIABLES = 10_000


class Damaged(Exception):  # noqa: N818 -- never leaves the two modules that read such files
    """The bytes are no MAT file."""


def elements(file: IO[bytes], size: int, order: str) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and length of the elements that can be variables."""
    at, count = START, 0
    while at + 8 <= size:
        file.seek(at)
        tag = file.read(8)
        kind, length = word(tag, 0, order), word(tag, 4, order)
        if at + 8 + length > size:
            raise Damaged("it is truncated")
        count += 1
        if count > VARIABLES:
            raise Damaged(f"more than {VARIABLES} variables")
        if kind in {MATRIX, COMPRESSED}:
            yield kind, at + 8, length
        at += 8 + length


def element_contents(path: Path, limit: int) -> Iterator[tuple[bytes, str]]:
    """Yield the content of every matrix element, inflated, the first ``limit`` bytes of it, and the byte order."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        order = "<" if file.read(START)[126:128] == b"IM" else ">"
        for kind, start, length in list(elements(file, size, order)):
            file.seek(start)
            if kind == MATRIX:
                yield file.read(min(length, limit)), order
                continue
            content = zlib.decompressobj().decompress(file.read(length), limit + 8)
            if len(content) >= 8 and word(content, 0, order) == MATRIX:
                yield content[8:], order


def numbers(content: bytes | bytearray, at: int, count: int, order: str) -> tuple[NDArray[Any], int]:
    """Return the numbers of the part at ``at`` and where the next part begins."""
    kind, size, data, after = tag(content, at, order)
    dtype = np.dtype(order + STORED[kind]) if kind in STORED else None
    if dtype is None or size != count * dtype.itemsize or data + size > len(content):
        raise Damaged("its values do not match its sizes")
    return np.frombuffer(content, dtype, count, data), after


def tag(content: bytes | bytearray, at: int, order: str) -> tuple[int, int, int, int]:
    """Return kind, length and start of the data of a sub-element, and where the next one begins."""
    first = word(content, at, order)
    if first >> 16:  # up to four bytes of data share the tag's eight
        if first >> 16 > 4:
            raise Damaged("an impossible tag")
        return first & 0xFFFF, first >> 16, at + 4, at + 8
    size = word(content, at + 4, order)
    return first, size, at + 8, at + 8 + size + -size % 8


def word(content: bytes | bytearray, at: int, order: str) -> int:
    """Return the unsigned 32-bit number at ``at``."""
    if at + 4 > len(content):
        raise Damaged("it is truncated")
    return int.from_bytes(content[at : at + 4], "little" if order == "<" else "big")
