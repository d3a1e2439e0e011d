"""Walk over the elements of a DICOM file, before a library that trusts lengths and nesting sees it.

pydicom follows sequences recursively and takes declared lengths at their word; here the walk is
iterative, bounded in depth and count, and compares every length with the size of the file.
"""

from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from medrecon.errors import InputError

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

_DEPTH = 16
_ELEMENTS = 200_000
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE00010
_FRAME_GROUPS = (0x52009229, 0x52009230)
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_BULK = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"))


@dataclass(frozen=True)
class DicomOutline:
    """What the walk found.

    ``pixel_bytes`` is None for encapsulated or absent pixel data; ``frame_groups`` tells whether the
    geometry stands in functional groups, frame by frame.
    """

    transfer_syntax: str
    has_pixels: bool
    pixel_bytes: int | None
    frame_groups: bool


@dataclass(frozen=True)
class _Level:
    end: int | None  # None: closed by a delimiter
    implicit: bool
    fragments: bool  # items are raw bytes, not data sets


def is_dicom(path: Path) -> bool:
    """Tell whether a file has DICOM's preamble; False as well if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def outline(path: Path) -> DicomOutline:
    """Check the structure of a DICOM file up to its pixel data; any flaw is an InputError."""
    try:
        with path.open("rb") as file:
            return _Walk(path, file).run()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


class _Walk:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.size = path.stat().st_size
        self.position = 132
        self.levels: list[_Level] = []
        self.frame_groups = False

    def fail(self, what: str) -> InputError:
        return InputError(f"{self.path}: damaged DICOM file: {what} at byte {self.position}; get a fresh copy of it")

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise self.fail("it ends within an element")
        return data

    def run(self) -> DicomOutline:
        if self.file.read(132)[128:] != b"DICM":
            raise InputError(f"{self.path}: not a DICOM file (no DICM after 128 bytes); expected a DICOM image")
        syntax = self._transfer_syntax()
        if syntax == DEFLATED:
            raise InputError(f"{self.path}: deflated DICOM is not supported; decompress it, e.g. with `dcmconv +te`")
        big, implicit = syntax == EXPLICIT_BIG, syntax == IMPLICIT_LITTLE
        tag_of, long_of = Struct(">HH" if big else "<HH"), Struct(">L" if big else "<L")
        short_of = Struct(">H" if big else "<H")
        for _ in range(_ELEMENTS):
            while self.levels and self.levels[-1].end == self.position:
                self.levels.pop()
            if self.position >= self.size:
                if self.levels:
                    raise self.fail("it ends within a sequence")
                return DicomOutline(syntax, has_pixels=False, pixel_bytes=None, frame_groups=self.frame_groups)
            head = self._read_head()
            group, element = tag_of.unpack(head[:4])
            tag = group << 16 | element
            if group == 0xFFFE:
                self._delimiter(tag, long_of.unpack(head[4:])[0])
                continue
            inherited = self.levels[-1].implicit if self.levels else implicit
            kind = b"" if inherited or not (head[4:6].isalpha() and head[4:6].isupper()) else head[4:6]
            if kind in _LONG:
                length = long_of.unpack(self.take(4))[0]
                self.position += 4
            else:
                length = short_of.unpack(head[6:])[0] if kind else long_of.unpack(head[4:])[0]
            if tag == _PIXELS and not self.levels:
                encapsulated = length == _UNDEFINED
                if not encapsulated and self.position + length > self.size:
                    raise self.fail(f"pixel data of {length} bytes in a file of {self.size}")
                stored = None if encapsulated else length
                return DicomOutline(syntax, has_pixels=True, pixel_bytes=stored, frame_groups=self.frame_groups)
            self.frame_groups |= tag in _FRAME_GROUPS and not self.levels
            self._value(kind, length, implicit=inherited or kind in (b"", b"UN"))
        raise InputError(f"{self.path}: more than {_ELEMENTS} DICOM elements before the pixel data; not read")

    def _read_head(self) -> bytes:
        self.file.seek(self.position)
        head = self.take(8)
        self.position += 8
        return head

    def _transfer_syntax(self) -> str:
        """Read the meta group, always explicit little endian, and stop at the first element after it."""
        syntax = ""
        unpack, long_of = Struct("<HH2sH").unpack, Struct("<L")
        while self.position + 8 <= self.size:
            group, element, kind, length = unpack(self._read_head())
            if group != 2:
                self.position -= 8
                break
            if kind in _LONG:
                length = long_of.unpack(self.take(4))[0]
                self.position += 4
            self._bounded(length)
            if element == 0x10:
                syntax = self.take(min(length, 64)).rstrip(b"\0 ").decode("ascii", "replace")
            self.position += length
        if not syntax:
            raise self.fail("no transfer syntax is stated")
        return syntax

    def _bounded(self, length: int) -> None:
        limit = next((level.end for level in reversed(self.levels) if level.end is not None), self.size)
        if self.position + length > min(limit, self.size):
            raise self.fail(f"an element of {length} bytes where {min(limit, self.size) - self.position} are left")

    def _push(self, length: int, *, implicit: bool, fragments: bool) -> None:
        if len(self.levels) >= 2 * _DEPTH:  # a sequence and its item are two levels
            raise InputError(f"{self.path}: DICOM sequences are nested more than {_DEPTH} deep; not read")
        if length != _UNDEFINED:
            self._bounded(length)
        self.levels.append(_Level(None if length == _UNDEFINED else self.position + length, implicit, fragments))

    def _delimiter(self, tag: int, length: int) -> None:
        if not self.levels:
            raise self.fail("a sequence item outside of any sequence")
        if tag == _ITEM:
            if self.levels[-1].fragments:
                self._bounded(length)
                self.position += length
            else:
                self._push(length, implicit=self.levels[-1].implicit, fragments=False)
        elif tag in (_ITEM_END, _SEQUENCE_END) and self.levels[-1].end is None:
            self.levels.pop()
        else:
            raise self.fail("an unexpected delimiter")

    def _value(self, kind: bytes, length: int, *, implicit: bool) -> None:
        if kind == b"SQ" or length == _UNDEFINED:
            self._push(length, implicit=implicit and kind != b"SQ", fragments=kind in _BULK)
        else:
            self._bounded(length)
            self.position += length
