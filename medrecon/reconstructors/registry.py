"""Methods by name: our own, and those of other packages through the entry-point group."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple, TypeVar

from medrecon.errors import UsageError
from medrecon.reconstructors.base import Reconstructor, Setting, parameter_names

GROUP = "medrecon.methods"

_OWN = {
    "adjoint": "medrecon.reconstructors.adjoint",
    "bcm": "medrecon.reconstructors.bcm",
    "cg-sense": "medrecon.reconstructors.tikhonov",
    "cgls": "medrecon.reconstructors.cgls",
    "dddm": "medrecon.reconstructors.dddm",
    "ddnm": "medrecon.reconstructors.ddnm",
    "diffpir": "medrecon.reconstructors.deepinv",
    "dps": "medrecon.reconstructors.deepinv",
    "fbp": "medrecon.reconstructors.fbp",
    "idm": "medrecon.reconstructors.learned",
    "l1-wavelet": "medrecon.reconstructors.wavelet",
    "sirt": "medrecon.reconstructors.sirt",
    "tikhonov": "medrecon.reconstructors.tikhonov",
    "tv": "medrecon.reconstructors.tv",
    "unet": "medrecon.reconstructors.learned",
    "varnet": "medrecon.reconstructors.learned",
}
_registered: dict[str, type[Reconstructor]] = {}
T = TypeVar("T", bound=type[Reconstructor])


class MethodInfo(NamedTuple):
    """What a list of methods shows: one line, the origin (distribution or module), the parameters."""

    summary: str
    origin: str
    parameters: tuple[str, ...]


def register_method(name: str, *aliases: str) -> Callable[[T], T]:
    """Class decorator: make a method available under ``name`` (and ``aliases``).

    A package that installs an entry point of the group ``medrecon.methods`` need not be imported
    first. A name that is taken raises.
    """

    def register(cls: T) -> T:
        for key in (name, *aliases):
            present = _registered.get(key)
            if key in _OWN and _OWN[key] != cls.__module__:
                raise UsageError(f"method name {key!r} is taken by {_OWN[key]}")
            if present is not None and _path(present) != _path(cls):
                raise UsageError(f"method name {key!r} is taken by {_path(present)}")
        for key in (name, *aliases):
            _registered[key] = cls
        cls.registered_name = name
        return cls

    return register


def available_methods() -> dict[str, MethodInfo]:
    """Return all methods by name; one whose package fails to import says so in its summary."""
    names = sorted({*_OWN, *_registered, *_entry_points()})
    return {name: _describe(name) for name in names}


def method_class(name: str) -> type[Reconstructor]:
    """Return the class of that name, importing the module that provides it."""
    points = _entry_points()
    if name in _OWN and name not in _registered:
        import_module(_OWN[name])
    if name not in _registered and name in points:
        _load(points[name])
    if name not in _registered:
        known = sorted({*_OWN, *_registered, *points})
        raise UsageError(f"no method is called {name!r}{_hint(name, known)}")
    return _registered[name]


def make_method(name: str, parameters: Mapping[str, Setting] | None = None) -> Reconstructor:
    """Build the method of that name.

    Parameters
    ----------
    name
        One of :func:`available_methods`.
    parameters
        Of its constructor; what is left out keeps its default. An unknown one raises.

    Examples
    --------
    >>> make_method("tikhonov", {"regularization": 0.02})
    Tikhonov(regularization=0.02, max_iter=30, tol=1e-06)
    """
    cls = method_class(name)
    given = dict(parameters or {})
    known = parameter_names(cls)
    for key in given:
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"method {name!r} has no parameter {key!r}: {hint}{takes}")
    build: Callable[..., Reconstructor] = cls
    try:
        return build(**given)
    except TypeError as error:
        raise UsageError(f"method {name!r} cannot be built from {sorted(given)}: {error}") from error


def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        own = _OWN.get(point.name)
        if own is not None:
            if point.value.partition(":")[0] not in (own, "medrecon.reconstructors"):
                raise UsageError(
                    f"method name {point.name!r} of {point.value} is taken by {own}: uninstall that package"
                )
            continue
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise UsageError(f"method name {point.name!r} is claimed by {other.value} and {point.value}: uninstall one")
        found[point.name] = point
    return found


def _load(point: EntryPoint) -> None:
    """Import the class behind an entry point and register it."""
    try:
        cls = point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"method {point.name!r}: {point.value} cannot be imported ({error})") from error
    if not (isinstance(cls, type) and issubclass(cls, Reconstructor)):
        raise UsageError(f"method {point.name!r}: {point.value} is not a Reconstructor")
    if point.name not in _registered:  # importing it may have run its decorator
        _registered[point.name] = cls
        cls.registered_name = cls.registered_name or point.name


def _describe(name: str) -> MethodInfo:
    point = _entry_points().get(name)
    origin = f"{point.dist.name} {point.dist.version}" if point is not None and point.dist is not None else None
    try:
        cls = method_class(name)
    except UsageError as error:
        return MethodInfo(f"(not usable: {error})", origin or "unknown", ())
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    return MethodInfo(summary, origin or cls.__module__, tuple(parameter_names(cls)))


def _hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
