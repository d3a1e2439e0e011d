"""Operators by name: our own, and those of other packages through the entry-point group."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from torch import Tensor

from medrecon.errors import InputError, UsageError
from medrecon.operators.base import LinearOperator

GROUP = "medrecon.operators"

_registered: dict[str, type[LinearOperator]] = {}
T = TypeVar("T", bound=type[LinearOperator])


def register_operator(name: str) -> Callable[[T], T]:
    """Class decorator: make an operator available under ``name`` to recipes, files and the command line.

    A package that installs an entry point of the group ``medrecon.operators`` need not be imported
    first. A name that is taken raises.
    """

    def register(cls: T) -> T:
        present = _registered.get(name)
        if present is not None and (present.__module__, present.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UsageError(f"operator name {name!r} is taken by {present.__module__}.{present.__qualname__}")
        _registered[name] = cls
        cls.registered_name = name
        return cls

    return register


def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise UsageError(
                f"operator name {point.name!r} is claimed by {other.value} and by {point.value}: uninstall one"
            )
        found[point.name] = point
    return found


def available_operators() -> dict[str, str]:
    """Return the names of all operators and where each comes from (distribution, or module if registered by hand)."""
    origins = {name: cls.__module__ for name, cls in _registered.items()}
    for name, point in _entry_points().items():
        origins[name] = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    return dict(sorted(origins.items()))


def operator_class(name: str) -> type[LinearOperator]:
    """Return the operator class of that name, importing the package that provides it."""
    import medrecon.operators.composition  # noqa: F401 (registers the compound operators)

    if name in _registered:
        return _registered[name]
    point = _entry_points().get(name)
    if point is None:
        known = list(available_operators())
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
        raise UsageError(f"no operator is called {name!r}{hint}")
    try:
        cls = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"operator {name!r}: {point.value} cannot be imported ({error})") from error
    if not (isinstance(cls, type) and issubclass(cls, LinearOperator)):
        raise UsageError(f"operator {name!r}: {point.value} is not a LinearOperator")
    cls.registered_name = name
    _registered[name] = cls
    return cls


def operator_from_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOperator:
    """Rebuild an operator from ``op.config()`` and ``op.tensors()``, as files and checkpoints store them."""
    name = config.get("operator")
    if not isinstance(name, str):
        raise InputError(f"operator configuration without a name: expected a key 'operator', got {sorted(config)}")
    try:
        return operator_class(name).from_config(config, tensors)
    except (KeyError, TypeError) as error:
        raise InputError(f"operator configuration of {name!r} is incomplete or wrong: {error!r}") from error
