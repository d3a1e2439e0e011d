"""Coil sensitivity maps of a data set, estimated once."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.datasets.volume_index import Volume
from medrecon.io.writers.atomic import atomic_path
from medrecon.operators.coils import CalibrationRegion, MapMethod, estimate_maps


class MapsCache:
    """Estimates maps, and keeps them as files where it is given a folder.

    Parameters
    ----------
    method
        See :func:`~medrecon.operators.coils.estimate_maps`; one set.
    folder
        One ``.npy`` a slice and calibration region, complex64; None keeps nothing.
    """

    def __init__(self, method: MapMethod, folder: Path | None = None) -> None:
        self.method = method
        self.folder = folder

    def get(
        self, calibration: Tensor, shape: tuple[int, int], volume: Volume, number: int, region: CalibrationRegion
    ) -> Tensor:
        """Return maps (1, C, H, W) of a slice from its calibration k-space (C, h, w)."""
        if self.folder is None:
            return estimate_maps(calibration, shape, self.method)
        described = f"{volume.path}:{volume.size}:{volume.modified}:{number}:{self.method}:{region}:{shape}"
        file = self.folder / f"{volume.path.stem}-{number}-{hashlib.sha256(described.encode()).hexdigest()[:16]}.npy"
        kept = _kept(file)
        if kept is not None and kept.shape == (1, len(calibration), *shape) and kept.dtype == torch.complex64:
            return kept
        maps = estimate_maps(calibration, shape, self.method)
        with atomic_path(file, overwrite=True) as temporary:
            np.save(temporary, maps.numpy())
        return maps


def _kept(file: Path) -> Tensor | None:
    """Return what a file holds; None where it is absent or damaged, and is to be written anew."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False))
    except (OSError, EOFError, ValueError, TypeError):
        return None
