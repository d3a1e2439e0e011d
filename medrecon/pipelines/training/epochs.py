"""A new epoch draws anew."""

from typing import TYPE_CHECKING, Any, cast

from torch.utils.data import DataLoader

from medrecon.datasets.batch import TrainingBatch
from medrecon.datasets.sampler import VolumeBatchSampler

if TYPE_CHECKING:
    from ignite.engine import Engine


class NewEpoch:
    """Handler of the trainer: other masks, noise and order in every epoch.

    Parameters
    ----------
    loader
        Of :func:`~medrecon.pipelines.training.data.data_loader`.
    """

    def __init__(self, loader: DataLoader[TrainingBatch | None]) -> None:
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
