"""What the MONAI bundles of ``pipelines/`` are put together from, beside the parts of ``medrecon train`` and MONAI."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.utils import collate_meta_tensor_fn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from medrecon.datasets.batch import TrainingBatch, collate
from medrecon.datasets.sampler import VolumeBatchSampler
from medrecon.errors import InputError, NumericalError
from medrecon.io import read_scan
from medrecon.io.writers.atomic import atomic_path
from medrecon.models.base import ReconstructionModel
from medrecon.models.files import DETAILS, training_details
from medrecon.pipelines.metadata import scan_meta
from medrecon.pipelines.scores import VolumeScores, merged, summary
from medrecon.pipelines.training.average import WeightAverage
from medrecon.pipelines.training.data import Data, TrainingData, data_loader, validation_data
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import RunFolder
from medrecon.pipelines.transforms import Reconstruct
from medrecon.pipelines.writers import _ImageWriter
from medrecon.reconstructors.learned import LearnedReconstructor

if TYPE_CHECKING:
    from ignite.engine import Engine

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
        run.record_start(
            {
                "fingerprint": data.fingerprint,
                "data": data.description,
                "seed": recipe.seed,
                "processes": processes.world,
                "device": str(processes.device),
            }
        )
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
    workers = recipe.training.workers if training else min(1, recipe.training.workers)
    loader = data_loader(
        dataset, recipe, training=training, rank=processes.rank, world=processes.world, workers=workers
    )
    if len(loader):
        return loader
    return DataLoader(cast(Any, dataset), batch_sampler=cast(Any, [[]]), collate_fn=collate)


class AfterStep:
    """``after_step`` of :class:`~medrecon.pipelines.training.steps.TrainingStep`: schedule and averaged weights.

    Parameters
    ----------
    model
        That is trained, on its device.
    schedule
        Moved on by every step.
    ema
        Decay of the averaged weights; None for none.

    Attributes
    ----------
    judged
        The model that is validated and saved: the averaged one where there is one.
    """

    def __init__(self, model: ReconstructionModel, schedule: LRScheduler, ema: float | None) -> None:
        self._model = model
        self._schedule = schedule
        self._average = None if ema is None else WeightAverage(model, ema)
        self.judged = model if self._average is None else self._average.model

    def __call__(self) -> None:
        """Move on."""
        self._schedule.step()
        if self._average is not None:
            self._average.update(self._model)


class NewEpoch:
    """Handler of the trainer: other masks, noise and order in every epoch.

    Parameters
    ----------
    loader
        Of :func:`slice_loader`.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def attach(self, engine: "Engine") -> None:
        """Listen to the start of epochs."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: "Engine") -> None:
        """Tell data and sampler the epoch."""
        epoch = engine.state.epoch - 1
        cast(Any, self._loader.dataset).set_epoch(epoch)
        cast(VolumeBatchSampler, self._loader.batch_sampler).set_epoch(epoch)


class VolumeQuality:
    """Key metric of the evaluator: fastMRI's NMSE, PSNR and SSIM, means over the volumes of all processes.

    All three come into ``engine.state.metrics``; the name under which it is attached says which decides.

    Parameters
    ----------
    loader
        Of :func:`slice_loader`.
    processes
        Who takes part; all of them run their evaluator.
    """

    def __init__(self, loader: Loader, processes: Processes) -> None:
        self._volumes = [cast(Any, loader.dataset).volume_of(index) for batch in _batches(loader) for index in batch]
        self._processes = processes
        self._scores = VolumeScores(self._volumes)

    def attach(self, engine: "Engine", name: Literal["ssim", "psnr", "nmse"]) -> None:  # noqa: ARG002 (MONAI's own)
        """Listen to an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compute)

    def _reset(self) -> None:
        self._scores = VolumeScores(self._volumes)

    def _update(self, engine: "Engine") -> None:
        output: Any = engine.state.output
        if output is not None:
            self._scores.update(output["batch"].sources, output["pred"], output["label"])

    def _compute(self, engine: "Engine") -> None:
        found = self._processes.gather((self._scores.finished, self._scores.unfinished()))
        scores = merged(part for part, _ in found)
        failed = [score for score in scores if score.error]
        if failed:
            raise NumericalError(f"{failed[0].volume}: {failed[0].error}")
        if not scores:
            raise InputError("no volume could be read, so there is nothing to judge; see the warnings before this")
        means = summary(scores)
        engine.state.metrics.update({name: means[name] for name in ("ssim", "psnr", "nmse")})
        engine.state.metric_details = {
            **means,
            "volumes": [{"volume": score.volume, "slices": score.slices, **score.scores} for score in scores],
            "missing": sorted({name for _, names in found for name in names}),
        }


class ModelSaver:
    """Handler of the evaluator: writes the best model so far, for ``medrecon reconstruct --checkpoint``.

    Parameters
    ----------
    run
        Of :func:`start_run`; the model goes into its folder ``model``.
    model
        What is judged.
    recipe
        Kept beside the weights, so that data to reconstruct are prepared as in training.
    """

    def __init__(self, run: RunFolder, model: ReconstructionModel, recipe: TrainingRecipe) -> None:
        self._run = run
        self._model = model
        self._recipe = recipe

    def attach(self, engine: "Engine") -> None:
        """Listen to the end of validations."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: "Engine") -> None:
        """Write where this validation was the best."""
        if engine.state.best_metric_epoch == engine.state.epoch:
            self._run.save_model(self._model, self._recipe, engine.state.epoch, _means(engine))


class ScoreWriter:
    """Handler of the evaluator: means and the scores of every volume as JSON.

    Parameters
    ----------
    path
        The file; replaced where it exists.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)

    def attach(self, engine: "Engine") -> None:
        """Listen to the end of validations."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: "Engine") -> None:
        """Write."""
        with atomic_path(self._path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(engine.state.metric_details, indent=2) + "\n", encoding="utf-8")


def measured_files(folder: Path | str, suffixes: Sequence[str] = (".h5", ".hdf5")) -> list[dict[str, str]]:
    """Return an item ``{"image": path}`` for each file with one of the suffixes directly inside a folder.

    Raises
    ------
    InputError
        Where there is none.
    """
    path = Path(folder)
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    kept = [file for file in files if file.name.lower().endswith(tuple(suffixes)) and not file.name.startswith(".")]
    if not kept:
        raise InputError(f"{path}: no files that end in {', '.join(suffixes)}; choose another --dataset_dir")
    return [{"image": str(file)} for file in kept]


class MeasurementReader(ImageReader):
    """Reader for ``LoadImaged`` of measurements of any operator, (C, slices, …), such as ``medrecon simulate`` writes.

    k-space and sinograms have readers with more to set, see :mod:`medrecon.pipelines.readers`.
    """

    def verify_suffix(self, filename: Sequence[str] | str) -> bool:  # noqa: ARG002
        """Claim nothing: this reader is for whoever names it."""
        return False

    def read(self, data: Sequence[str] | str) -> list[Path]:
        """Take the names."""
        return [Path(data)] if isinstance(data, str) else [Path(name) for name in data]

    def get_data(self, img: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the measurements of one file and their metadata, see :func:`medrecon.pipelines.metadata.scan_meta`."""
        scan = read_scan(img[0])
        slices = range(len(scan.measurements))
        values = torch.stack([scan.measurements[index] for index in slices], dim=1).numpy()
        return values, {**scan_meta(scan, slices), "spatial_shape": np.array(values.shape[1:])}


class NiftiWriter(_ImageWriter):
    """NIfTI through :func:`medrecon.io.write_image`, with a JSON sidecar, for ``SaveImaged(keys, writer=...)``.

    Always three axes: MONAI's own writer drops the last of a single slice and then fails, or else adds a fourth.

    Parameters
    ----------
    output_dtype, scale, overwrite, modality
        As in :class:`~medrecon.pipelines.HDF5Writer`.
    """

    format = "nifti"
    dtypes = ("None", "float32")


class VolumeNetwork(nn.Module):
    """A trained model as a network on whole measured volumes, (B, C, slices, …) to images (B, 1, X, Y, Z).

    Parameters
    ----------
    checkpoint
        Folder of a training run, or of the model in it.
    device
        Where to compute.
    """

    def __init__(self, checkpoint: Path | str, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._reconstruct = Reconstruct(checkpoint=checkpoint, device=device)
        reconstructor = cast(LearnedReconstructor, self._reconstruct._reconstructor)
        self.model = reconstructor.model

    def forward(self, measurements: Tensor) -> Tensor:
        """Return the images, with the metadata of the measurements and the affine of the reconstruction grid."""
        images: Tensor = collate_meta_tensor_fn([self._reconstruct(volume) for volume in measurements])
        return images


def _batches(loader: Loader) -> Iterator[list[int]]:
    yield from cast(Any, loader.batch_sampler)


def _means(engine: "Engine") -> Mapping[str, float]:
    return {name: value for name, value in engine.state.metric_details.items() if isinstance(value, float)}
