"""A trained model on data of one's own choice: what ``medrecon evaluate`` does with a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medrecon.errors import InputError, UsageError
from medrecon.io.writers.atomic import atomic_path
from medrecon.models.files import DETAILS, training_details
from medrecon.models.registry import load_trained
from medrecon.pipelines.training.data import Data, Progress, data_loader, load_data, validation_data
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import TrainingRecipe, changed
from medrecon.pipelines.training.validation import Picture, Validation, Verdict

_GAP = 4
_HEAD = 18


class Judgement(NamedTuple):
    """What was found, and the recipe by which the data were measured."""

    verdict: Verdict
    recipe: TrainingRecipe
    details: dict[str, Any]


def judge(
    folder: Path,
    paths: Sequence[Path] = (),
    changes: Sequence[tuple[str, Any]] = (),
    *,
    device: torch.device | None = None,
    pictures: int = 4,
    progress: Progress | None = None,
) -> Judgement:
    """Score a trained model per volume, on data that are measured as its recipe says.

    Parameters
    ----------
    folder
        Of a run, or of the model in it, or the name of a model that comes with medrecon.
    paths
        Files or folders; by default what the run has held out.
    changes
        Of the recipe, as pairs of dotted key and value: another acceleration, say.
    device
        Where to compute.
    pictures
        How many slices are shown.
    progress
        Called with the share of the batches that are done.
    """
    details = training_details(folder)
    if details is None:
        raise InputError(
            f"{folder}: holds no {DETAILS}, so how its data were measured is unknown; expected a run of 'medrecon "
            "train'. Images that are already reconstructed are compared with --reference"
        )
    recipe = TrainingRecipe.from_dict(changed(details["recipe"], changes), f"{folder}: {DETAILS}")
    data = validation_data(recipe, paths) if paths else _held_out(recipe, details, folder)
    model = load_trained(folder).eval()
    processes = Processes(device=device or torch.device("cpu"))
    torch.nn.Module.to(model, processes.device)
    validation = Validation(
        model,
        data_loader(data, recipe, training=False),
        data,
        processes,
        pictures=pictures,
        precision=recipe.training.precision,
        progress=progress,
    )
    return Judgement(validation.run(), recipe, details)


def _held_out(recipe: TrainingRecipe, details: Mapping[str, Any], folder: Path) -> Data:
    if "fingerprint" not in details.get("run", {}):
        raise UsageError(f"{folder}: does not say where the data of its training lie; name data with --data")
    data = load_data(recipe)
    if data.fingerprint != details.get("run", {}).get("fingerprint"):
        raise UsageError(
            f"{folder}: the data are no longer those of the training (names or sizes of files differ), so what it held "
            "out is unknown; name other data with --data"
        )
    return data.validation


def write_sheet(pictures: Sequence[Picture], path: Path) -> None:
    """Write pictures below one another as a PNG, each under its name; nothing where there are none."""
    from PIL import Image, ImageDraw

    if not pictures:
        return
    rows = [_enlarged(picture.image) for picture in pictures]
    width = max(row.shape[1] for row in rows)
    height = sum(row.shape[0] + _HEAD + _GAP for row in rows)
    sheet = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for picture, row in zip(pictures, rows, strict=True):
        draw.text((2, top + 2), f"{picture.source}: start, result, truth, 5 x difference", fill=0)
        sheet.paste(Image.fromarray(np.rint(255 * row).astype(np.uint8)), (0, top + _HEAD))
        top += _HEAD + row.shape[0] + _GAP
    with atomic_path(path, overwrite=True) as temporary:
        sheet.save(temporary, format="PNG")


def _enlarged(image: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = max(1, 160 // image.shape[0])
    return image.repeat(factor, 0).repeat(factor, 1)
