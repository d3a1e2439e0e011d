"""Structs in MAT files of version 5 to 7: their numeric fields, by path."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.mat5_elements import CLASSES, Damaged, element_contents, numbers, tag, word

_STRUCT = 2
_DEPTH, _FIELDS, _NAME_LENGTH = 4, 256, 64


def mat5_struct_names(path: Path) -> list[str]:
    """Return the names of the structs of a file; nothing but their headers is looked at."""
    try:
        return [name for kind, name, _ in _variables(path, limit=1 << 16) if kind == _STRUCT]
    except (Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged MAT file ({error}); save it again") from error


def mat5_struct(path: Path, name: str, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Return the real numeric fields of the struct ``name``, those of inner structs as ``inner/field``.

    Parameters
    ----------
    path, name
        File and variable.
    max_bytes
        What the variable may take when it is inflated.
    """
    try:
        for kind, found, content in _variables(path, limit=max_bytes):
            if kind == _STRUCT and found == name:
                fields: dict[str, NDArray[Any]] = {}
                _collect(content, 0, "", fields, 0)
                return fields
    except (Damaged, OSError, zlib.error) as error:
        raise InputError(f"{path}: the struct {name!r} is damaged ({error}); save it again") from error
    raise InputError(f"{path}: no struct called {name!r}")


def _variables(path: Path, *, limit: int) -> list[tuple[int, str, bytes]]:
    """Return class, name and content of all variables, of each no more than ``limit`` bytes."""
    found = []
    for content, order in element_contents(path, limit):
        if order != "<":
            raise Damaged("big-endian structs are not read")
        kind = word(content, 8, order) & 0xFF
        _, _, _, at = tag(content, 0, order)
        _, _, _, at = tag(content, at, order)
        _, size, data, _ = tag(content, at, order)
        found.append((kind, content[data : data + size].decode("ascii", "replace"), content))
    return found


def _collect(content: bytes, start: int, prefix: str, fields: dict[str, NDArray[Any]], depth: int) -> None:
    """Walk the matrix element whose sub-elements begin at ``start``."""
    if depth > _DEPTH:
        raise Damaged("structs within structs without end")
    kind = word(content, start + 8, "<") & 0xFF
    _, _, _, at = tag(content, start, "<")
    _, size, data, at = tag(content, at, "<")
    shape = np.frombuffer(content, "<i4", size // 4, data).tolist()
    _, _, _, at = tag(content, at, "<")
    if kind == _STRUCT:
        if any(axis != 1 for axis in shape):
            return  # an array of structs
        _, _, data, at = tag(content, at, "<")
        length = word(content, data, "<")
        _, size, data, at = tag(content, at, "<")
        if not 0 < length <= _NAME_LENGTH or size % length or size // length > _FIELDS:
            raise Damaged("impossible field names")
        names = [content[data + i * length : data + (i + 1) * length] for i in range(size // length)]
        for raw in names:
            _, size, data, after = tag(content, at, "<")
            if size:
                field = raw.split(b"\0")[0].decode("ascii", "replace")
                _collect(content, data, f"{prefix}{field}/", fields, depth + 1)
            at = after
    elif kind in CLASSES and 0 not in shape and all(axis > 0 for axis in shape):
        count = int(np.prod(shape, dtype=object))
        values, _ = numbers(content, at, count, "<")
        fields[prefix.rstrip("/")] = values.astype(CLASSES[kind]).reshape(shape, order="F")
