"""A model as a folder: config.json, weights as safetensors, a model card."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medrecon import __version__
from medrecon.errors import InputError, MedreconError, NumericalError
from medrecon.models.shipped import checkpoint_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"
DETAILS = "training.json"
M = TypeVar("M", bound=ModelMixin)


def load_model(cls: type[M], folder: Path) -> M:
    """Return the model of a local folder, all of whose weights are there and finite, in single precision.

    ``from_pretrained`` fills what is missing with random numbers and only logs it.

    Raises
    ------
    InputError
        For anything else.
    """
    folder = model_folder(folder)
    found = class_name(folder, cls.__name__)
    if found != cls.__name__:
        raise InputError(f"{folder / 'config.json'}: describes a {found}, expected {cls.__name__}")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: lacks {WEIGHTS}; is the download, or the training run, complete?")
    logger = logging.getLogger("diffusers.models.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says at length what is said here in a line
    try:
        load: Any = cls.from_pretrained
        model, report = load(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(f"{folder}: cannot be loaded ({reason[0] if reason else type(error).__name__})") from error
    finally:
        logger.setLevel(level)
    for what, keys in (("lacks", report["missing_keys"]), ("has unexpected", report["unexpected_keys"])):
        if keys:
            raise InputError(
                f"{folder / WEIGHTS}: {what} {len(keys)} tensors, the first is {sorted(keys)[0]!r}; do these weights "
                "belong to this config.json?"
            )
    bad = sorted(name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise InputError(f"{folder / WEIGHTS}: {len(bad)} tensors hold NaN or Inf, the first is {bad[0]!r}")
    loaded: M = torch.nn.Module.float(model)  # whatever precision it is stored in
    return loaded


def save_model(model: ModelMixin, folder: Path, card: str | None, *, half: bool = False) -> None:
    """Write a model, in half precision if asked for; files appear whole or not at all, the weights before the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        temporary = Path(name)
        save: Any = model.save_pretrained
        try:
            save(temporary, safe_serialization=True, max_shard_size="100GB")
        except SafetensorError as error:  # a full disk, as a rule
            raise MedreconError(
                f"{folder}: the model could not be written ({error}); what was there before is as it was: make room"
            ) from error
        if half:
            _halve(temporary / WEIGHTS)
        config = json.loads((temporary / "config.json").read_text())
        config.pop("_name_or_path", None)  # of the folder that it was loaded from
        (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        (temporary / "README.md").write_text(card if card is not None else _card(model))
        (temporary / WEIGHTS).chmod((temporary / "config.json").stat().st_mode)  # safetensors makes it private
        for file in (WEIGHTS, "config.json", "README.md"):
            (temporary / file).replace(folder / file)


def model_folder(folder: Path) -> Path:
    """Return the folder that holds config.json: this one, or ``model`` in it where this is that of a training run.

    The bare name of a model that comes with medrecon is its folder, see
    :func:`~medrecon.models.shipped.checkpoint_folder`.
    """
    folder = checkpoint_folder(folder)
    inner = folder / "model"
    return inner if not (folder / "config.json").is_file() and (inner / "config.json").is_file() else folder


def training_details(folder: Path) -> dict[str, Any] | None:
    """Return how a trained model came about; None where it does not say."""
    path = model_folder(folder) / DETAILS
    if not path.is_file():
        return None
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); restore it from the run") from error
    if not isinstance(details, dict) or not isinstance(details.get("recipe"), dict):
        raise InputError(f"{path}: holds no recipe; restore it from the run")
    return details


def class_name(folder: Path, expected: str = "ReconstructionModel") -> str | None:
    """Return the name of the class whose model a folder holds, None where its config.json names none.

    Parameters
    ----------
    folder
        As :func:`save_model` writes it.
    expected
        Name of a class, for messages.

    Raises
    ------
    InputError
        Where there is no folder, or no readable config.json in it.
    """
    path = folder / "config.json"
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file, expected the folder of a model; 'medrecon convert-idm' makes one of a published "
            "checkpoint"
        )
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else "lacks config.json"
        raise InputError(f"{folder}: {what}; expected a model as {expected}.save() writes it")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    return found if isinstance(found, str) else None


def _halve(path: Path) -> None:
    """Rewrite weights in half precision."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in load_file(path).items()}
    bad = sorted(name for name, value in halved.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise NumericalError(
            f"{len(bad)} tensors do not fit into half precision, the first is {bad[0]!r}; save in full"
        )
    save_file(halved, path, metadata={"format": "pt"})


def _card(model: ModelMixin) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    settings = "".join(f"- {key}: {value}\n" for key, value in model.config.items() if not key.startswith("_"))
    return (
        f"# {type(model).__name__}\n\n{count:,} parameters, written by medrecon {__version__}. What it was trained on, "
        f"and how, is for its author to add here. Not for diagnostic use.\n\n## Configuration\n\n{settings}"
    )
