"""The slices that a checkpoint never saw: the validation side of the split of its own training recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medrecon.datasets import GroundTruth
from medrecon.models.files import training_details
from medrecon.pipelines.training.data import load_data
from medrecon.pipelines.training.recipe import TrainingRecipe, changed

# what decides which subjects are held back
_SPLIT = ("kind", "train", "validation", "volumes", "subjects", "key", "modality")


class Slices(NamedTuple):
    """Slices for choosing λ, of subjects that were trained on, and slices to judge on, of others."""

    training: list[GroundTruth]
    held_back: list[GroundTruth]


def training_recipe(checkpoint: Path, data: Path) -> TrainingRecipe:
    """Return the recipe that a checkpoint was trained by, its paths moved into the folder ``data``.

    All held-back slices count, not only the few that training validated on.
    """
    card = _details(checkpoint)["recipe"]
    part = card["data"]
    if part.get("kind") != "images":
        raise SystemExit(f"{checkpoint}: was trained on {part.get('kind')}, expected images, whose split can be redone")
    changes: list[tuple[str, Any]] = [("data.validation_slices", None)]
    for key in ("train", "validation"):
        if isinstance(part.get(key), list | str):
            several = [part[key]] if isinstance(part[key], str) else part[key]
            changes.append((f"data.{key}", [str(_moved(Path(path), data)) for path in several]))
    return TrainingRecipe.from_dict(changed(card, changes), str(checkpoint))


def split(checkpoints: Sequence[Path], data: Path) -> Slices:
    """Redo the split of training, by the code of training.

    Raises
    ------
    SystemExit
        Where the data are not those of the training, or the checkpoints do not share a split.
    """
    first, *others = [training_recipe(checkpoint, data) for checkpoint in checkpoints]
    for checkpoint, recipe in zip(checkpoints[1:], others, strict=True):
        differ = [key for key in _SPLIT if getattr(recipe.data, key, None) != getattr(first.data, key, None)]
        if recipe.seed != first.seed or differ:
            raise SystemExit(
                f"{checkpoint}: holds back other subjects than {checkpoints[0]} ({', '.join(differ) or 'seed'})"
            )
    found = load_data(first)
    noted = _details(checkpoints[0]).get("run", {}).get("data")
    trained = found.description.partition(", ")[0]
    if noted is not None and noted.partition(", ")[0] != trained:
        raise SystemExit(
            f"{checkpoints[0]}: was trained with {noted.partition(', ')[0]}; now there are {trained}, so who was held "
            "back is unknown. Give the data of the training with --data"
        )
    held_back = sorted({truth.subject or truth.source.volume for truth in found.validation.images})  # type: ignore[union-attr]
    print(f"trained on {trained}; held back: {', '.join(Path(name).name for name in held_back)}")
    return Slices(list(found.train.images), list(found.validation.images))  # type: ignore[union-attr]


def only(slices: Slices, *words: str) -> Slices:
    """Keep the slices whose file name holds one of some words."""
    kept = ([truth for truth in part if any(word in truth.source.volume for word in words)] for part in slices)
    return Slices(*kept)


def _details(checkpoint: Path) -> dict[str, Any]:
    details = training_details(checkpoint)
    if details is None:
        raise SystemExit(f"{checkpoint}: does not say what it was trained on, so no slice is known to be held back")
    return details


def _moved(path: Path, data: Path) -> Path:
    """Return the file or folder of ``data`` whose path ends like this one's; the longest such end counts.

    Models that come with the package keep names only, which are searched for.
    """
    for start in range(1, len(path.parts)):
        candidate = data.joinpath(*path.parts[start:])
        if candidate.exists():
            return candidate.resolve()
    found = list(data.rglob(path.name))
    if len(found) == 1:
        return found[0].resolve()
    raise SystemExit(f"{data}: holds nothing like {path}, which the checkpoint was trained on")
