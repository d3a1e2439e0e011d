"""From measured files to images with a trained model, in the terms of MONAI's engines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.utils import collate_meta_tensor_fn
from numpy.typing import NDArray
from torch import Tensor, nn

from medrecon.errors import InputError
from medrecon.io import read_scan
from medrecon.pipelines.metadata import scan_meta
from medrecon.pipelines.transforms import Reconstruct
from medrecon.pipelines.writers import _ImageWriter
from medrecon.reconstructors.learned import LearnedReconstructor


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
