"""Learned models by name: our own, and those of other packages through the entry-point group."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from medrecon.errors import InputError, UsageError
from medrecon.models.base import ReconstructionModel
from medrecon.models.files import class_name, model_folder

GROUP = "medrecon.models"
DEFAULT_PRESET = "small"

_OWN = {
    "bcm": "medrecon.models.bcm:BidirectionalConsistencyModel",
    "dddm": "medrecon.models.dddm:DirectlyDenoisingModel",
    "ddnm": "medrecon.models.ddpm:DiffusionPrior",
    "idm": "medrecon.models.idm:InvertibleDiffusionModel",
    "unet": "medrecon.models.baseline_unet:UNetBaseline",
    "varnet": "medrecon.models.unrolled:UnrolledNetwork",
}
_registered: dict[str, type[ReconstructionModel]] = {}
T = TypeVar("T", bound=type[ReconstructionModel])


def register_model(name: str) -> Callable[[T], T]:
    """Class decorator: make a model available under ``name`` to training and to checkpoints.

    A package that installs an entry point of the group ``medrecon.models`` need not be imported
    first. A name that is taken raises.
    """

    def register(cls: T) -> T:
        present, own = _registered.get(name), _OWN.get(name)
        if own is not None and own != _path(cls):
            raise UsageError(f"model name {name!r} is taken by {own}")
        if present is not None and _path(present) != _path(cls):
            raise UsageError(f"model name {name!r} is taken by {_path(present)}")
        _registered[name] = cls
        cls.registered_name = name
        return cls

    return register


def available_models() -> dict[str, str]:
    """Return all models by name, with one line each; one whose package fails to import says so there."""
    return {name: _describe(name) for name in sorted(_places())}


def model_class(name: str) -> type[ReconstructionModel]:
    """Return the class of that name, importing the module that provides it."""
    if name not in _registered:
        place = _places().get(name)
        if place is None:
            known = sorted(_places())
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise UsageError(f"no model is called {name!r}{hint}")
        _load(name, place)
    return _registered[name]


def build_model(
    name: str, *, image_channels: int, preset: str | None = None, parameters: Mapping[str, object] | None = None
) -> ReconstructionModel:
    """Build an untrained model.

    Parameters
    ----------
    name
        One of :func:`available_models`.
    image_channels
        Real channels of an image: 2 for a complex one.
    preset
        The configuration to start from, "small" by default.
    parameters
        Of its constructor, instead of what the preset says.

    Raises
    ------
    UsageError
        For an unknown name, preset or parameter, or a value that the constructor refuses.

    Examples
    --------
    >>> build_model("idm", image_channels=2, preset="tiny", parameters={"steps": 2}).settings.steps
    2
    """
    cls = model_class(name)
    given = dict(parameters or {})
    known = [key for key in inspect.signature(cls).parameters if key != "image_channels"]
    for key in given:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"model {name!r} has no parameter {key!r}: {hint}it takes {', '.join(known)}")
    build: Any = cls
    try:
        config = cls.preset_config(preset or DEFAULT_PRESET, image_channels=image_channels, parameters=given)
        model: ReconstructionModel = build(**config)
    except UsageError as error:
        raise UsageError(f"model {name!r}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"model {name!r} cannot be built with {image_channels=}, {given}: {error}") from error
    return model


def trained_class(folder: str | Path) -> type[ReconstructionModel]:
    """Return the class of the model that a folder holds, without reading its weights; see :func:`load_trained`."""
    folder = model_folder(Path(folder))
    found = class_name(folder)
    classes = {place.replace(":", ".").rpartition(".")[2]: name for name, place in _places().items()}
    if found not in classes:
        raise InputError(
            f"{folder / 'config.json'}: describes a {found}, expected one of {', '.join(sorted(classes))}; is the "
            "package installed that defines it?"
        )
    return model_class(classes[found])


def load_trained(folder: str | Path) -> ReconstructionModel:
    """Return the trained model of a folder, whichever it is.

    Parameters
    ----------
    folder
        As ``save`` writes it, or that of a training run, which holds one under ``model``, or the name of one of
        :func:`~medrecon.models.shipped.shipped_models`.

    Raises
    ------
    InputError
        For a folder that holds no model, an unknown one, or one that is incomplete or damaged.
    """
    return trained_class(folder).load(folder)


def _places() -> dict[str, str]:
    """Return "module:class" of every model by name."""
    points = {name: point.value for name, point in _entry_points().items()}
    return {**points, **_OWN, **{name: _path(cls) for name, cls in _registered.items()}}


def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        taken = _OWN.get(point.name) or (found[point.name].value if point.name in found else point.value)
        if taken != point.value:
            raise UsageError(f"model name {point.name!r} of {point.value} is taken by {taken}: uninstall one package")
        found[point.name] = point
    return found


def _load(name: str, place: str) -> None:
    """Import the class at "module:class" and register it."""
    module, _, attribute = place.partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"model {name!r}: {place} cannot be imported ({error})") from error
    if not (isinstance(cls, type) and issubclass(cls, ReconstructionModel)):
        raise UsageError(f"model {name!r}: {place} is not a ReconstructionModel")
    if name not in _registered:  # importing it may have run its decorator
        register_model(name)(cls)


def _describe(name: str) -> str:
    try:
        cls = model_class(name)
    except UsageError as error:
        return f"(not usable: {error})"
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _path(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
