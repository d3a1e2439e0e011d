"""medrecon inside MONAI pipelines: readers, transforms, writers, inference and a metric."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.pipelines.collate import collate_with_operators
    from medrecon.pipelines.inferer import ReconstructionInferer
    from medrecon.pipelines.metric import VolumeMetric
    from medrecon.pipelines.readers import KSpaceReader, SinogramReader
    from medrecon.pipelines.registration import register
    from medrecon.pipelines.simulation import SimulateMeasurementsd
    from medrecon.pipelines.transforms import Reconstruct, Reconstructd
    from medrecon.pipelines.writers import DicomWriter, HDF5Writer

_MODULES = {
    "DicomWriter": "writers",
    "HDF5Writer": "writers",
    "KSpaceReader": "readers",
    "ReconstructionInferer": "inferer",
    "Reconstruct": "transforms",
    "Reconstructd": "transforms",
    "SimulateMeasurementsd": "simulation",
    "SinogramReader": "readers",
    "VolumeMetric": "metric",
    "collate_with_operators": "collate",
    "register": "registration",
}

__all__ = [
    "DicomWriter",
    "HDF5Writer",
    "KSpaceReader",
    "Reconstruct",
    "Reconstructd",
    "ReconstructionInferer",
    "SimulateMeasurementsd",
    "SinogramReader",
    "VolumeMetric",
    "collate_with_operators",
    "register",
]

__getattr__ = lazy_names(__name__, _MODULES)
