"""Named array axes, and the canonical order that everything after a reader relies on."""

from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError

CANONICAL = ("slice", "repeat", "z", "coil", "y", "x")
"""Axes of an arranged array, in order: y (rows, read-out) and x (columns, phase encoding) come last."""

NAMES = ("coil", "slice", "z", "y", "x", "set", "average", "repetition", "_")
ADVICE = "name them in order with --axes, e.g. --axes coil,y,x | y,x,coil | slice,y,x"
_REPEATS = ("repetition", "average")


def parse_axes(text: str) -> tuple[str, ...]:
    """Split ``"coil,y,x"`` into names, checked: known ones, none twice, y and x among them.

    Upper case and blanks do not matter; ``_`` marks an axis of length 1 and may be repeated.
    """
    names = tuple(part.strip().lower() for part in text.split(","))
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise InputError(f"--axes {text!r}: {unknown[0]!r} is not the name of an axis; known are {', '.join(NAMES)}")
    twice = [name for name, count in Counter(names).items() if count > 1 and name != "_"]
    if twice:
        raise InputError(f"--axes {text!r}: {twice[0]!r} stands there twice; each axis has one name")
    missing = [name for name in ("y", "x") if name not in names]
    if missing:
        raise InputError(f"--axes {text!r}: {' and '.join(missing)} not named; k-space has y (read-out) and x")
    return names


def arrange(array: NDArray[Any], axes: tuple[str, ...], what: str = "the array") -> NDArray[Any]:
    """View an array with named axes as (slice, repeat, z, coil, y, x); axes that are absent get length 1.

    Averages and repetitions share the axis ``repeat``. Of a ``set`` axis (different preparations, not
    repeats of the same) only the first entry is taken; :func:`dropped_sets` tells how many are left.

    Raises
    ------
    InputError
        When the number of names does not fit, or an axis called ``_`` is longer than 1.
    """
    if len(axes) != array.ndim:
        raise InputError(
            f"{what} has {array.ndim} axes (shape {array.shape}), but {','.join(axes)} names {len(axes)}: {ADVICE}"
        )
    if 0 in array.shape:
        raise InputError(f"{what} is empty: shape {array.shape}")
    index: list[int | slice] = []
    kept: list[str] = []
    for name, length in zip(axes, array.shape, strict=True):
        if name == "_" and length != 1:
            raise InputError(f"{what}: --axes marks an axis of length {length} as '_', which means length 1: {ADVICE}")
        index.append(0 if name in {"_", "set"} else slice(None))
        if name not in {"_", "set"}:
            kept.append(name)
    view = array[tuple(index)]
    order = ("slice", *_REPEATS, "z", "coil", "y", "x")
    view = view.transpose([kept.index(name) for name in order if name in kept])
    sizes = dict(zip((name for name in order if name in kept), view.shape, strict=True))
    full = tuple(sizes.get(name, 1) for name in order)
    return view.reshape(full[0], full[1] * full[2], *full[3:])


def dropped_sets(shape: tuple[int, ...], axes: tuple[str, ...]) -> int:
    """How many entries of the ``set`` axis :func:`arrange` leaves out."""
    return shape[axes.index("set")] - 1 if "set" in axes else 0


def join_repeats(block: NDArray[Any], how: Literal["average", "first"]) -> NDArray[Any]:
    """Average the first axis over the samples that were acquired (not exactly 0), or keep its first entry.

    Repetitions of an undersampled scan may hold different lines: each sample is divided by the number
    of times it was measured.
    """
    if how == "first" or len(block) == 1:
        return block[0]
    measured = (block != 0).any(axis=-3, keepdims=True).sum(axis=0)
    total: NDArray[Any] = block.sum(axis=0, dtype=np.result_type(block.dtype, np.complex64))
    return np.asarray(total / np.maximum(measured, 1).astype(np.float32), dtype=np.complex64)
