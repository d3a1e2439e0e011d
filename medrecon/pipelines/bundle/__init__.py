"""What the MONAI bundles of ``pipelines/`` are put together from, beside the parts of ``medrecon train`` and MONAI."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.pipelines.bundle.data import judged_slices, part_of, slice_loader, start_run, trained_recipe
    from medrecon.pipelines.bundle.handlers import ModelSaver, ScoreWriter, VolumeQuality
    from medrecon.pipelines.bundle.inference import MeasurementReader, NiftiWriter, VolumeNetwork, measured_files

_MODULES = {
    "MeasurementReader": "inference",
    "ModelSaver": "handlers",
    "NiftiWriter": "inference",
    "ScoreWriter": "handlers",
    "VolumeNetwork": "inference",
    "VolumeQuality": "handlers",
    "judged_slices": "data",
    "measured_files": "inference",
    "part_of": "data",
    "slice_loader": "data",
    "start_run": "data",
    "trained_recipe": "data",
}

__all__ = [
    "MeasurementReader",
    "ModelSaver",
    "NiftiWriter",
    "ScoreWriter",
    "VolumeNetwork",
    "VolumeQuality",
    "judged_slices",
    "measured_files",
    "part_of",
    "slice_loader",
    "start_run",
    "trained_recipe",
]

__getattr__ = lazy_names(__name__, _MODULES)
