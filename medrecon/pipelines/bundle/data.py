"""What the bundles train and judge on: the data of a recipe, as the batches of one process."""

import logging
from pathlib import Path
from typing import Any, Literal, cast

from torch.utils.data import DataLoader

from medrecon.datasets.batch import TrainingBatch, collate
from medrecon.errors import InputError
from medrecon.models.files import DETAILS, training_details
from medrecon.pipelines.training.data import Data, TrainingData, data_loader, validation_data
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import RunFolder

Loader = DataLoader[TrainingBatch | None]
_log = logging.getLogger("medrecon")


def start_run(folder: Path | str, recipe: TrainingRecipe, data: TrainingData, processes: Processes) -> RunFolder:
    """Make the folder of a training run, as ``medrecon train`` does; one that is not empty is refused."""
    path = Path(folder)
    run = RunFolder(path)
    if processes.main:
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path}: is there already and not empty; choose another --output_dir")
        run.create(recipe)
        run.record_start(recipe, data, processes)
        _log.info("%s", data.description)
    return run


def part_of(data: TrainingData, part: Literal["train", "validation"]) -> Data:
    """Return the slices to train or to validate on."""
    return data.train if part == "train" else data.validation


def trained_recipe(checkpoint: Path | str) -> TrainingRecipe:
    """Return the recipe by which the model of a folder was trained.

    Raises
    ------
    InputError
        Where the folder does not say.
    """
    details = training_details(Path(checkpoint))
    if details is None:
        raise InputError(f"{checkpoint}: holds no {DETAILS}; expected the output_dir of a training run")
    return TrainingRecipe.from_dict(details["recipe"], f"{checkpoint}: {DETAILS}")


def judged_slices(recipe: TrainingRecipe, data: Path | str) -> Data:
    """Return the slices of a folder, measured as those that the recipe validates on."""
    return validation_data(recipe, [Path(data)])


def slice_loader(dataset: Data, recipe: TrainingRecipe, processes: Processes, *, training: bool) -> Loader:
    """Return the batches of this process.

    A process without a volume to validate gets one empty batch: MONAI's evaluator does not run on none, and the
    others would wait for it.
    """
    loader = data_loader(dataset, recipe, training=training, rank=processes.rank, world=processes.world)
    if len(loader):
        return loader
    return DataLoader(cast(Any, dataset), batch_sampler=cast(Any, [[]]), collate_fn=collate)
