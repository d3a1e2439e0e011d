"""The training engine: MONAI's and Ignite's, with what makes a run repeatable, resumable and watchable."""

import logging
import time
from typing import Any, NamedTuple

from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch.nn.parallel import DistributedDataParallel

from medrecon.datasets.sampler import VolumeBatchSampler
from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.models.base import ReconstructionModel
from medrecon.pipelines.scores import GREATER_IS_BETTER, summary
from medrecon.pipelines.training import checkpoint
from medrecon.pipelines.training.average import AfterStep
from medrecon.pipelines.training.data import TrainingData, data_loader
from medrecon.pipelines.training.epochs import NewEpoch
from medrecon.pipelines.training.journal import Journal
from medrecon.pipelines.training.optimization import build_optimizer, build_schedule
from medrecon.pipelines.training.processes import Processes
from medrecon.pipelines.training.recipe import TrainingRecipe
from medrecon.pipelines.training.run_folder import MODEL, RunFolder
from medrecon.pipelines.training.steps import TrainingLoss, TrainingStep
from medrecon.pipelines.training.validation import Validation, Verdict
from medrecon.pipelines.training.watch import Watch

_log = logging.getLogger("medrecon")


class Outcome(NamedTuple):
    """How a run has ended.

    Attributes
    ----------
    epochs, iterations
        How far it came.
    finished
        Whether it is at its end: all epochs, or no improvement for long enough. Else it was interrupted and can be
        taken up again.
    best
        The best value of the metric of the recipe; None before the first validation.
    best_epoch
        When that was.
    """

    epochs: int
    iterations: int
    finished: bool
    best: float | None
    best_epoch: int


class Training:
    """A training run in a folder.

    Parameters
    ----------
    recipe
        What to do.
    model
        Untrained, or to go on from; on the device of ``processes``.
    data
        Of :func:`~medrecon.pipelines.training.data.load_data`.
    folder
        Where everything is written, by the main process.
    processes
        Who takes part.
    resume
        Whether to go on from the checkpoint of the folder.
    quiet
        Whether to show no progress.

    Raises
    ------
    InputError
        Where the checkpoint does not fit.
    UsageError
        Where the recipe has changed in a way that cannot be resumed.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        model: ReconstructionModel,
        data: TrainingData,
        folder: RunFolder,
        processes: Processes,
        *,
        resume: bool = False,
        quiet: bool = False,
    ) -> None:
        part = recipe.training
        self.recipe = recipe
        self.model = model
        self.data = data
        self.folder = folder
        self.processes = processes
        self.quiet = quiet
        loss = TrainingLoss(model, part.loss)
        loader = data_loader(data.train, recipe, training=True, rank=processes.rank, world=processes.world)
        if not isinstance(loader.batch_sampler, VolumeBatchSampler):
            raise TypeError("the loader of data_loader has a VolumeBatchSampler")
        self._sampler = loader.batch_sampler
        steps = part.epochs * -(-len(loader) // part.accumulate)
        self.optimizer = build_optimizer(model.parameters(), part)
        self.schedule = build_schedule(self.optimizer, part, steps)
        after_step = AfterStep(model, self.schedule, part.ema)
        self.average, self.judged = after_step.average, after_step.judged
        self.step = TrainingStep(
            accumulate=part.accumulate,
            clip=part.clip,
            precision=part.precision,
            processes=processes,
            after_step=after_step,
        )
        self.trainer = SupervisedTrainer(
            device=processes.device,
            max_epochs=part.epochs,
            train_data_loader=loader,
            network=DistributedDataParallel(loss) if processes.world > 1 else loss,
            optimizer=self.optimizer,
            loss_function=loss,  # not used: the step computes it
            iteration_update=self.step,
            decollate=False,
        )
        self.validation = Validation(
            self.judged,
            data_loader(data.validation, recipe, training=False, rank=processes.rank, world=processes.world),
            data.validation,
            processes,
            pictures=recipe.validation.pictures if processes.main else 0,
            precision=part.precision,
        )
        self.best: float | None = None
        self.best_epoch = 0
        self._validated = 0  # the last epoch that is closed: validated if it was due, and saved
        self._finished = False
        self._waiting = 0.0
        self._clock = self._asked = time.perf_counter()
        if resume:
            self._resume()
        self.journal = Journal(folder.path, self.trainer.state.iteration) if processes.main else None
        self._attach()

    def run(self) -> Outcome:
        """Train to the end, or until :meth:`request_stop`."""
        state = self.trainer.state
        total = state.epoch_length * self.recipe.training.epochs
        with Watch(total, quiet=self.quiet or not self.processes.main) as self._watch:
            try:
                if state.iteration and state.iteration % state.epoch_length == 0 and self._validated < state.epoch:
                    self._close_epoch(self.trainer)  # interrupted between the last step and the validation
                if not self._finished and state.iteration < total:
                    self._clock = self._asked = time.perf_counter()
                    self.trainer.run()
            finally:
                if self.journal is not None:
                    self.journal.close()
        finished = self._finished or self._validated == self.recipe.training.epochs
        return Outcome(self._validated, state.iteration, finished, self.best, self.best_epoch)

    def request_stop(self) -> None:
        """End after the current step, in all processes, with a checkpoint from which the run continues exactly."""
        self.step.stop_requested = True

    def _attach(self) -> None:
        trainer = self.trainer
        NewEpoch(trainer.data_loader).attach(trainer)
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self._receive)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._close_epoch)
        logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it announces every exception before it raises it

    def _ask(self, _trainer: SupervisedTrainer) -> None:
        self._asked = time.perf_counter()

    def _receive(self, _trainer: SupervisedTrainer) -> None:
        self._waiting += time.perf_counter() - self._asked

    def _after_iteration(self, trainer: SupervisedTrainer) -> None:
        state, part = trainer.state, self.recipe.training
        inside = state.iteration % state.epoch_length
        if state.iteration % part.log_every == 0:
            elapsed = time.perf_counter() - self._clock
            rate, waiting = part.log_every / elapsed, min(1.0, self._waiting / elapsed)
            self._clock, self._waiting = time.perf_counter(), 0.0
            values = {
                "epoch": state.epoch,
                "loss": state.output["loss"],
                "gradient_norm": state.output["gradient_norm"],
                "learning_rate": self.schedule.get_last_lr()[0],
                "iterations_per_second": rate,
                "waiting_for_data": waiting,
            }
            if self.journal is not None:
                self.journal.write("train", state.iteration, values)
            self._watch.step(state.iteration, state.epoch, state.output["loss"], rate, waiting)
        if inside % part.accumulate:
            return  # gradients are under way, which no checkpoint holds
        if state.output["stop"]:
            self._save()
            trainer.terminate()
        elif inside and state.iteration % part.save_every < part.accumulate:
            self._save()

    def _close_epoch(self, trainer: SupervisedTrainer) -> None:
        """Validate where it is due, keep the best model, save."""
        epoch = trainer.state.epoch
        if epoch % self.recipe.validation.every == 0 or epoch == self.recipe.training.epochs:
            self._save()  # a long validation may be the moment at which a cluster takes the machine away
            self._validate(epoch)
        self._validated = epoch
        self._save()
        if self._finished:
            trainer.terminate()
        self._clock, self._waiting = time.perf_counter(), 0.0

    def _validate(self, epoch: int) -> None:
        verdict = self.validation.run(epoch)
        failed = [score for score in verdict.scores if score.error]
        if failed:
            raise NumericalError(f"validation after epoch {epoch}: {failed[0].volume}: {failed[0].error}")
        if not verdict.scores:
            raise InputError(f"validation after epoch {epoch}: no volume could be read")
        part = self.recipe.validation
        means = summary(verdict.scores)
        value = means[part.metric]
        sign = 1 if GREATER_IS_BETTER[part.metric] else -1
        better = self.best is None or sign * value > sign * self.best
        if better:
            self.best, self.best_epoch = value, epoch
            if self.processes.main:
                self.folder.save_model(self.judged, self.recipe, epoch, means)
        elif part.patience is not None and (epoch - self.best_epoch) // part.every >= part.patience:
            self._finished = True
        self._tell(epoch, means, verdict, better=better)

    def _tell(self, epoch: int, means: dict[str, float], verdict: Verdict, *, better: bool) -> None:
        if self.journal is None:
            return
        iteration = self.trainer.state.iteration
        volumes = {score.volume: dict(score.scores) for score in verdict.scores}
        damaged = self.data.train.damage.count if hasattr(self.data.train, "damage") else 0
        extra = {"volumes": volumes, "missing": verdict.missing, "unreadable": damaged, "best": better}
        self.journal.write("validation", iteration, {"epoch": epoch, **means, **extra})
        for picture in verdict.pictures:
            self.journal.picture(f"validation/{picture.source}", iteration, picture.image)
        if not self.quiet:
            scores = f"SSIM {means['ssim']:.4f}  PSNR {means['psnr']:.2f} dB  NMSE {means['nmse']:.4g}"
            notes = "  (best)" if better else ""
            notes += f"  {len(verdict.missing)} volumes could not be read" if verdict.missing else ""
            _log.info("epoch %d: %s on %d volumes%s", epoch, scores, len(verdict.scores), notes)

    def _save(self) -> None:
        """Write the checkpoint; all processes must call this."""
        state = self.trainer.state
        random_states = self.processes.gather(checkpoint.random_state())
        if self.processes.main:
            content: dict[str, Any] = {
                "recipe": self.recipe.model_dump(mode="json"),
                "fingerprint": self.data.fingerprint,
                "world": self.processes.world,
                "epoch_length": state.epoch_length,
                "iteration": state.iteration,
                "validated": self._validated,
                "finished": self._finished,
                "best": self.best,
                "best_epoch": self.best_epoch,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "random": random_states,
            }
            self.folder.save_checkpoint(content)
        self.processes.wait()

    def _resume(self) -> None:
        content = self.folder.load_checkpoint()
        state = self.trainer.state
        self.folder.check_resumable(content, self.recipe, self.data.fingerprint)
        length, world = content["epoch_length"], content["world"]
        if (length, world) != (state.epoch_length, self.processes.world):
            raise UsageError(
                f"{self.folder.path}: was trained by {world} processes with {length} iterations an epoch, now there "
                f"are {self.processes.world} with {state.epoch_length}; resume with as many, or start a new run with "
                f"--model.start {self.folder.path / MODEL}"
            )
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{self.folder.path}: the checkpoint is of another model ({reason})") from error
        self.schedule.load_state_dict(content["schedule"])
        checkpoint.set_random_state(content["random"][self.processes.rank])
        self.best, self.best_epoch = content["best"], content["best_epoch"]
        self._validated = content["validated"]
        patience = content["recipe"]["validation"]["patience"]
        self._finished = content["finished"] and patience == self.recipe.validation.patience
        state.iteration = content["iteration"]
        state.epoch = state.iteration // length
        self._sampler.skip(state.iteration % length)
