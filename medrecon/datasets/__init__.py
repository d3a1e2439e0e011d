"""What models are trained on: measured and simulated data, and batches of them."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.datasets.batch import TrainingBatch, TrainingSample, collate
    from medrecon.datasets.fastmri import FastMRIDataset
    from medrecon.datasets.ground_truth import GroundTruth, load_ground_truth
    from medrecon.datasets.sampler import VolumeBatchSampler
    from medrecon.datasets.scans import ScanDataset
    from medrecon.datasets.simulated import SimulatedDataset
    from medrecon.datasets.source import Source
    from medrecon.datasets.volume_index import Volume, index_folder

_MODULES = {
    "FastMRIDataset": "fastmri",
    "GroundTruth": "ground_truth",
    "ScanDataset": "scans",
    "SimulatedDataset": "simulated",
    "Source": "source",
    "TrainingBatch": "batch",
    "TrainingSample": "batch",
    "Volume": "volume_index",
    "VolumeBatchSampler": "sampler",
    "collate": "batch",
    "index_folder": "volume_index",
    "load_ground_truth": "ground_truth",
}

__all__ = [
    "FastMRIDataset",
    "GroundTruth",
    "ScanDataset",
    "SimulatedDataset",
    "Source",
    "TrainingBatch",
    "TrainingSample",
    "Volume",
    "VolumeBatchSampler",
    "collate",
    "index_folder",
    "load_ground_truth",
]

__getattr__ = lazy_names(__name__, _MODULES)
