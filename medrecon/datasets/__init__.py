"""What models are trained on: ground truth, measurements of it, and batches of them."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.datasets.batch import TrainingBatch, TrainingSample, collate
    from medrecon.datasets.ground_truth import GroundTruth, load_ground_truth
    from medrecon.datasets.simulated import SimulatedDataset

_MODULES = {
    "GroundTruth": "ground_truth",
    "SimulatedDataset": "simulated",
    "TrainingBatch": "batch",
    "TrainingSample": "batch",
    "collate": "batch",
    "load_ground_truth": "ground_truth",
}

__all__ = ["GroundTruth", "SimulatedDataset", "TrainingBatch", "TrainingSample", "collate", "load_ground_truth"]

__getattr__ = lazy_names(__name__, _MODULES)
