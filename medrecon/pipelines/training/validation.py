"""Judging a model on volumes, in one process or several."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from medrecon.datasets.batch import TrainingBatch, centre_magnitude
from medrecon.datasets.source import Source
from medrecon.models.base import ReconstructionModel
from medrecon.pipelines.scores import VolumeScore, VolumeScores, gathered
from medrecon.pipelines.training.data import Data
from medrecon.pipelines.training.journal import strip
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.steps import EvaluationStep, Precision


class Picture(NamedTuple):
    """Start, result, truth and their difference, side by side, (h, 4w) in [0, 1]."""

    source: Source
    image: NDArray[np.float32]


class Verdict(NamedTuple):
    """What a validation finds.

    Attributes
    ----------
    scores
        Of all volumes of all processes.
    missing
        Volumes of which slices could not be read; they have no scores.
    pictures
        Of some slices of this process.
    """

    scores: list[VolumeScore]
    missing: list[str]
    pictures: list[Picture]


class Validation:
    """Runs MONAI's ``SupervisedEvaluator`` over this process's volumes and joins what all have found.

    Parameters
    ----------
    model
        What is judged; it is moved nowhere.
    loader
        Batches of this process.
    data
        Where they come from.
    processes
        Who takes part.
    pictures
        How many slices are shown.
    precision
        As in training.
    progress
        Called with the share of the batches of this process that are done.
    """

    def __init__(
        self,
        model: ReconstructionModel,
        loader: DataLoader[TrainingBatch | None],
        data: Data,
        processes: Processes,
        *,
        pictures: int = 0,
        precision: Precision = "float32",
        progress: Callable[[float], None] | None = None,
    ) -> None:
        self._data = data
        self._processes = processes
        self._progress = progress
        self._batches: list[list[int]] = list(loader.batch_sampler or ())  # the same in every pass
        self._indices = [index for batch in self._batches for index in batch]
        shown = np.linspace(0, len(self._indices) - 1, min(pictures, len(self._indices))).round().astype(int)
        self._shown = {self._indices[place] for place in shown}
        self._scores = VolumeScores([])
        self._pictures: list[Picture] = []
        self._model = model
        self.evaluator = SupervisedEvaluator(
            device=processes.device,
            val_data_loader=loader,
            network=model,
            inferer=SimpleInferer(),
            iteration_update=EvaluationStep(precision),
            decollate=False,
        )
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._collect)

    def run(self, epoch: int = 1) -> Verdict:
        """Judge the model as it is now; all processes must call this."""
        self._scores = VolumeScores(self._data.volume_of(index) for index in self._indices)
        self._pictures = []
        if self._batches:
            self.evaluator.run(epoch)
        return Verdict(*gathered(self._scores, self._processes), self._pictures)

    def _collect(self, engine: SupervisedEvaluator) -> None:
        output = engine.state.output
        indices = self._batches[engine.state.iteration - 1]
        if self._progress is not None:
            self._progress(engine.state.iteration / len(self._batches))
        if output is None:
            return
        batch: TrainingBatch = output["batch"]
        self._scores.update(batch.sources, output["pred"], output["label"])
        wanted = self._shown & set(indices)
        if wanted and len(batch.sources) == len(indices):
            start = centre_magnitude(batch.operator.initial(batch.measurements), tuple(output["label"].shape[1:]))
            for index in sorted(wanted):
                place = indices.index(index)
                planes = [part[place].float().cpu().numpy() for part in (start, output["pred"], output["label"])]
                self._pictures.append(Picture(batch.sources[place], strip(planes)))
