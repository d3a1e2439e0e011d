"""From a recipe to a trained model: what ``medrecon train`` does."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from medrecon.errors import InputError, MedreconError, UsageError
from medrecon.models.base import ReconstructionModel
from medrecon.models.idm import InvertibleDiffusionModel
from medrecon.models.injector import real_channels
from medrecon.models.registry import build_model, load_trained
from medrecon.pipelines.training.data import Data, Progress, TrainingData, load_data
from medrecon.pipelines.training.engine import Outcome, Training
from medrecon.pipelines.training.processes import Processes, end_processes, start_processes
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import RunFolder

_log = logging.getLogger("medrecon")


def train(
    recipe: TrainingRecipe,
    folder: Path,
    *,
    resume: bool = False,
    device: torch.device | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train a model.

    Under ``torchrun`` all processes call this and train together, each with volumes of its own. SIGTERM and Ctrl-C
    end the run after the current step with a checkpoint; a second signal ends it at once.

    Parameters
    ----------
    recipe
        What to do.
    folder
        Where everything is written, see :class:`~medrecon.pipelines.training.run_folder.RunFolder`.
    resume
        Whether to go on from the checkpoint of the folder: bit for bit as if there had been no interruption, given
        the same number of processes.
    device
        Where to compute; the CPU by default.
    quiet
        Whether to show no progress.
    progress
        Called with the share of the files that have been looked at.
    """
    processes = start_processes(device or torch.device("cpu"))
    try:
        return _train(recipe, folder, processes, resume=resume, quiet=quiet, progress=progress)
    finally:
        end_processes()


def _train(
    recipe: TrainingRecipe,
    folder: Path,
    processes: Processes,
    *,
    resume: bool,
    quiet: bool,
    progress: Progress | None,
) -> Outcome:
    """Do what :func:`train` says; when this has returned nothing holds the group of the processes any more."""
    run_folder = RunFolder(folder)
    if not resume:
        _together(processes, lambda: run_folder.create(recipe))
    torch.manual_seed(recipe.seed + processes.rank)
    data = _shared_data(recipe, processes, progress)
    model = make_model(recipe, data.train)
    _log.info("%s; %s", data.description, _described(model))
    torch.nn.Module.to(model, processes.device)  # diffusers wraps its own into something untyped
    training = Training(recipe, model, data, run_folder, processes, resume=resume, quiet=quiet)
    if processes.main:
        run_folder.keep_recipe(recipe)
        run_folder.record_start(recipe, data, processes)
    processes.wait()
    with _stopped_by_signals(training), warnings.catch_warnings():
        # depth-wise weights have a stride that means nothing; it costs DDP nothing that could be measured
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return training.run()


def make_model(recipe: TrainingRecipe, data: Data) -> ReconstructionModel:
    """Return the model of a recipe for the images of these data.

    Raises
    ------
    InputError
        Where ``model.start`` is for other images.
    """
    sample = next((sample for sample in (data[index] for index in range(len(data))) if sample is not None), None)
    if sample is None:
        raise InputError("no sample can be read")
    channels = real_channels(sample.operator)
    part = recipe.model
    if part.start is not None:
        model = load_trained(part.start)
        if channels % int(model.settings.image_channels):
            raise InputError(
                f"{part.start}: is for images of {model.settings.image_channels} real channels, these data have "
                f"{channels}"
            )
        model = _unshared(model, part.start) if part.unshare else model
    else:
        state = torch.get_rng_state()
        torch.manual_seed(recipe.seed)  # the same weights in all processes
        model = build_model(part.method, image_channels=channels, preset=part.preset, parameters=part.parameters)
        torch.set_rng_state(state)
    if part.memory is not None:
        if not hasattr(model, "memory"):
            raise UsageError(f"model.memory: {part.method} knows no memory modes; remove the key")
        setattr(model, "memory", part.memory)  # noqa: B010 (not every model has it)
    return model.train()


def _unshared(model: ReconstructionModel, start: Path) -> ReconstructionModel:
    if not isinstance(model, InvertibleDiffusionModel):
        raise UsageError(f"model.unshare: is for idm, {start} holds a {type(model).__name__}; remove the key")
    return model.unshared()


def _together(processes: Processes, work: Callable[[], None]) -> None:
    """Let the main process work, and fail in all if it fails."""
    error: Exception | None = None
    if processes.main:
        try:
            work()
        except Exception as caught:  # noqa: BLE001 (raised again below, in every process)
            error = caught
    if processes.gather(error is not None)[0]:
        raise error or MedreconError("the first process has stopped; its message says why")


def _shared_data(recipe: TrainingRecipe, processes: Processes, progress: Progress | None) -> TrainingData:
    """Load the data, the main process first: what it finds out about files is remembered for the others."""
    found: list[TrainingData] = []
    _together(processes, lambda: found.append(load_data(recipe, progress)))
    return found[0] if found else load_data(recipe)


def _described(model: ReconstructionModel) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__} with {count / 1e6:.2f} M parameters"


@contextmanager
def _stopped_by_signals(training: Training) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask for a stop; the second time they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        sys.stderr.write("stopping after this step; once more to stop at once, without a checkpoint\n")
        training.request_stop()

    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
