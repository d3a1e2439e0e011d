"""The folder of a training run: recipe, log, checkpoint, the best model."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medrecon import __version__
from medrecon.errors import InputError, UsageError
from medrecon.io.writers.atomic import atomic_path
from medrecon.models.base import ReconstructionModel
from medrecon.models.files import DETAILS
from medrecon.pipelines.training import checkpoint
from medrecon.pipelines.training.data import TrainingData
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import FastMRIData, TrainingRecipe, load_training_recipe

RECIPE = "recipe.yaml"
RECORD = "run.json"
MODEL = "model"
_MAY_CHANGE = {
    "name", "data.train", "data.maps_cache", "data.on_damage", "training.epochs", "training.workers",
    "training.save_every", "training.log_every", "validation.every", "validation.patience",
    "validation.batch_size", "validation.pictures", "model.memory",
}  # fmt: skip
_PACKAGES = ("torch", "monai", "pytorch-ignite", "diffusers", "numpy")


class RunFolder:
    """A folder with everything about a run; every file in it is either complete or absent.

    ==================== ==================================================================================
    ``recipe.yaml``      the recipe with all defaults
    ``run.json``         versions, git commit, fingerprint of the data, seed, processes, of every start
    ``log.jsonl``        a line for every few iterations and every validation
    ``tensorboard/``     the same as curves, and pictures
    ``checkpoint.pt``    the last state, from which the run continues exactly
    ``model/``           the best model so far, for ``--checkpoint``, and ``training.json``, how it came about
    ==================== ==================================================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, recipe: TrainingRecipe) -> None:
        """Make the folder and keep the recipe.

        Raises
        ------
        UsageError
            Where there is something in it already.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            hint = f"go on with --resume {self.path}, or " if (self.path / checkpoint.FILE).is_file() else ""
            raise UsageError(f"{self.path}: is there already and not empty; {hint}choose another --output")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: is a file; choose another --output")
        self.keep_recipe(recipe)

    def keep_recipe(self, recipe: TrainingRecipe) -> None:
        """Write the recipe."""
        with atomic_path(self.path / RECIPE, overwrite=True) as temporary:
            temporary.write_text(recipe.to_yaml(), encoding="utf-8")

    def recipe(self, changes: list[tuple[str, Any]]) -> TrainingRecipe:
        """Return the recipe of the run, changed by pairs of dotted key and value."""
        if not (self.path / RECIPE).is_file():
            what = f"holds no {RECIPE}" if self.path.is_dir() else "no such folder"
            raise InputError(f"{self.path}: {what}; expected the folder of a training run")
        return load_training_recipe(self.path / RECIPE, changes)

    def record_start(self, recipe: TrainingRecipe, data: TrainingData, processes: Processes) -> None:
        """Append to ``run.json`` when and with what the run was started or taken up."""
        path = self.path / RECORD
        try:
            starts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            starts = []
        facts = {"fingerprint": data.fingerprint, "data": data.description, "seed": recipe.seed}
        where = {"processes": processes.world, "device": str(processes.device)}
        started = datetime.now(UTC).isoformat(timespec="seconds")
        starts.append({"started": started, **environment(), **facts, **where})
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(starts, indent=2) + "\n", encoding="utf-8")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        checkpoint.save_checkpoint(self.path / checkpoint.FILE, state)

    def load_checkpoint(self) -> dict[str, Any]:
        """Return the last checkpoint."""
        return checkpoint.load_checkpoint(self.path / checkpoint.FILE)

    def save_model(
        self, model: ReconstructionModel, recipe: TrainingRecipe, epoch: int, scores: Mapping[str, float]
    ) -> None:
        """Write the model that is the best so far, with how it came about."""
        starts = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        data = recipe.data
        details = {
            "recipe": recipe.model_dump(mode="json"),
            "epoch": epoch,
            "validation": dict(scores),
            "reconstruction": {"maps": data.maps, "remove_oversampling": data.remove_oversampling}
            if isinstance(data, FastMRIData)
            else {},
            "run": starts[-1],
        }
        model.save(self.path / MODEL, card=model_card(model, recipe, epoch, scores))
        with atomic_path(self.path / MODEL / DETAILS, overwrite=True) as temporary:
            temporary.write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")

    def check_resumable(self, content: Mapping[str, Any], recipe: TrainingRecipe, fingerprint: str) -> None:
        """Raise UsageError where recipe or data are no longer those of the checkpoint."""
        first = TrainingRecipe.from_dict(content["recipe"], checkpoint.FILE)  # of an older version it lacks new keys
        before, now = (dict(_flat(part.model_dump(mode="json"))) for part in (first, recipe))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        refused = [key for key in changed if not _may_change(key, before, now)]
        if refused:
            shown = "; ".join(f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in refused[:5])
            raise UsageError(
                f"{self.path}: cannot go on with another recipe ({shown}); restore {RECIPE}, or start a new run with "
                f"--model.start {self.path / MODEL}"
            )
        if content["fingerprint"] != fingerprint:
            raise UsageError(
                f"{self.path}: the data are not those that the run began with (names or sizes of files differ); "
                f"restore them, or start a new run with --model.start {self.path / MODEL}"
            )


def environment() -> dict[str, Any]:
    """Return versions and, where medrecon runs from a checkout, its commit."""
    versions = {"medrecon": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "git_commit": _commit()}


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603 (nothing of it comes from outside)
            ["git", "-C", str(root), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _may_change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if key == "data.validation":  # a folder may have moved; another share would be other data
        return isinstance(before.get(key), list) and isinstance(now.get(key), list)
    return key in _MAY_CHANGE


def model_card(model: ReconstructionModel, recipe: TrainingRecipe, epoch: int, scores: Mapping[str, float]) -> str:
    """Return the text of a model card: size, scores, recipe."""
    count = sum(parameter.numel() for parameter in model.parameters())
    found = "".join(f"| {name} | {value:.4g} |\n" for name, value in scores.items())
    return (
        f"# {recipe.name}: {type(model).__name__}\n\n{count:,} parameters, trained by medrecon {__version__}. Not for "
        f"diagnostic use.\n\nHeld-out volumes after epoch {epoch}, by fastMRI's definitions, mean over volumes and "
        f"twice the standard deviation:\n\n| metric | value |\n|---|---|\n{found}\nData, seed and versions are in "
        f"`{DETAILS}`.\n\n## Recipe\n\n```yaml\n{recipe.to_yaml()}```\n"
    )
