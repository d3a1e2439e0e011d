"""From a finished run to a trained model that comes with the package."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrecon.cards import card_folder, read_card
from medrecon.errors import InputError, UsageError
from medrecon.io.writers.atomic import atomic_path
from medrecon.models import shipped
from medrecon.models.files import DETAILS, training_details
from medrecon.models.registry import load_trained
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import model_card
from medrecon.reconstructors.scope import Scope

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ABSOLUTE = re.compile(r"(^|[\s'\"=:(])(/|~/|[A-Za-z]:[\\/]+)\w")
_PATHS = {"data": ("train", "validation", "maps_cache"), "model": ("start",)}


def ship(run: Path, name: str, scope: Path | None = None) -> Path:
    """Write the best model of a run into the package, for ``--checkpoint NAME``; return its folder.

    Weights are stored in half precision. The model card is ``card.md`` beside the recipe in ``pipelines/`` where
    there is one. ``training.json`` keeps recipe, scores and versions, but of data only names.

    Parameters
    ----------
    run
        Folder of a training run, or of the model in it.
    name
        Lower-case letters, digits and dashes; a model of that name is replaced.
    scope
        YAML or JSON file, see :class:`~medrecon.reconstructors.scope.Scope`; by default ``scope.yaml`` beside the
        recipe in ``pipelines/``. Without any, the model is never chosen by itself.

    Raises
    ------
    UsageError
        For a name that is none, or where a path of this machine would be published.
    InputError
        For a folder without a trained model.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r}: expected a name of lower-case letters, digits and dashes")
    details = training_details(run)
    if details is None:
        raise InputError(f"{run}: holds no {DETAILS}; expected the folder of a training run")
    public = public_details(details)
    recipe = TrainingRecipe.from_dict(public["recipe"], f"{run}: {DETAILS}")
    beside = card_folder("pipelines") / recipe.name
    model = load_trained(run)
    card, described = beside / "card.md", scope or beside / "scope.yaml"
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    if text is None:
        text = model_card(model, recipe, public["epoch"], public["validation"])
    limits = None
    if scope is not None or described.is_file():
        limits = Scope.from_dict(read_card(described, "the scope of a model", ("modality",)), described.name)
    for what, content in (("card", text), (DETAILS, json.dumps(public))):
        _check_private(what, content)
    folder = shipped.FOLDER / name
    model.save(folder, card=text, half=True)
    _write(folder / DETAILS, public)
    if limits is None:
        (folder / shipped.SCOPE).unlink(missing_ok=True)
    else:
        _write(folder / shipped.SCOPE, limits.to_dict())
    return folder


def public_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a model came about, without what only makes sense on the machine where it did."""
    public: dict[str, Any] = json.loads(json.dumps(details))
    for part, keys in _PATHS.items():
        section = public["recipe"].get(part, {})
        for key in keys:
            section.update({key: _names(section[key])} if key in section else {})
    # without its fingerprint nobody takes other data for those that were held out
    public["run"] = {key: value for key, value in public.get("run", {}).items() if key != "fingerprint"}
    return public


def _names(value: object) -> object:
    if isinstance(value, list):
        return [_names(item) for item in value]
    return Path(value).name if isinstance(value, str) else value


def _check_private(what: str, text: str) -> None:
    found = _ABSOLUTE.search(text)
    if found is not None:
        shown = text[found.start() : found.start() + 60].splitlines()[0]
        raise UsageError(f"{what}: holds a path of this machine ({shown!r}); remove it")


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
