"""The state of a training run as one file, from which it continues exactly."""

import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrecon import __version__
from medrecon.errors import InputError, MedreconError
from medrecon.io.budget import human
from medrecon.io.writers.atomic import atomic_path

FILE = "checkpoint.pt"
_FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state; a checkpoint that is there already is replaced only once the new one is complete.

    Parameters
    ----------
    path
        The file.
    state
        Tensors, numbers, texts, lists and dictionaries only: it is read back without running any code.

    Raises
    ------
    MedreconError
        Where it cannot be written, as on a full disk.
    """
    try:
        with atomic_path(path, overwrite=True) as temporary:
            torch.save({"format": _FORMAT, "medrecon": __version__, **state}, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as "iostream error"
        free = human(shutil.disk_usage(path.parent).free)
        raise MedreconError(
            f"{path}: could not be written ({str(error).partition(chr(10))[0]}; {free} are free on this disk); the "
            "checkpoint before it is as it was: make room, then go on with --resume"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what :func:`save_checkpoint` wrote, on the CPU.

    Raises
    ------
    InputError
        Where there is none, or it is not one, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: holds no {path.name}; expected the folder of a training run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); is it complete?") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise InputError(f"{path}: is a checkpoint of format {found}, expected {_FORMAT}; was it written by medrecon?")
    return state


def random_state() -> dict[str, Any]:
    """Return the state of all global random generators of this process."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 (the legacy generator is the global one)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        # numpy arrays are no tensors, and would need code to be read back
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Take up what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))  # noqa: NPY002
