"""Checks of the parameters of a method: what was found, what was expected."""

import math
from collections.abc import Sequence

from medrecon.errors import UsageError


def number(owner: str, name: str, value: object, *, below: float = math.inf) -> float:
    """Return ``value`` as a finite float with 0 <= value < ``below``, or raise."""
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (valid and isinstance(value, int | float) and 0 <= value < below):
        limit = "" if below == math.inf else f" and < {below:g}"
        raise UsageError(f"{owner}: {name} must be a number >= 0{limit}, got {value!r}")
    return float(value)


def count(owner: str, name: str, value: object, *, at_least: int = 1) -> int:
    """Return ``value`` as an integer >= ``at_least``, or raise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UsageError(f"{owner}: {name} must be an integer >= {at_least}, got {value!r}")
    return value


def choice(owner: str, name: str, value: object, known: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``known``, or raise."""
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{owner}: {name} must be one of {', '.join(known)}, got {value!r}")
    return value


def switch(owner: str, name: str, value: object) -> bool:
    """Return ``value`` if it is a bool, or raise."""
    if not isinstance(value, bool):
        raise UsageError(f"{owner}: {name} must be true or false, got {value!r}")
    return value
