"""Handlers of the bundles: what Ignite's engines do beside steps."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from medrecon.errors import InputError, NumericalError
from medrecon.io.writers.atomic import atomic_path
from medrecon.models.base import ReconstructionModel
from medrecon.pipelines.bundle.data import Loader
from medrecon.pipelines.scores import VolumeScores, gathered, summary
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import RunFolder

if TYPE_CHECKING:
    from ignite.engine import Engine


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
        scores, missing = gathered(self._scores, self._processes)
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
            "missing": missing,
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


def _batches(loader: Loader) -> Iterator[list[int]]:
    yield from cast(Any, loader.batch_sampler)


def _means(engine: "Engine") -> Mapping[str, float]:
    return {name: value for name, value in engine.state.metric_details.items() if isinstance(value, float)}
