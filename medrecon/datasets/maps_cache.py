"""Coil sensitivity maps of a data set, estimated once."""

import hashlib
import io
import math
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
        kept = _kept(file, (1, len(calibration), *shape))
        if kept is not None:
            return kept
        maps = estimate_maps(calibration, shape, self.method)
        with atomic_path(file, overwrite=True) as temporary:
            np.save(temporary, maps.contiguous().numpy())
        return maps


def _kept(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Return the maps in a file; None where it is absent or not whole, and is to be written anew.

    The header is compared, not parsed: numpy's parser raises errors of many kinds on a damaged one.
    """
    header = io.BytesIO()
    described = {"descr": "<c8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    wanted = header.getvalue()
    try:
        content = bytearray(file.read_bytes())
    except OSError:
        return None
    if not content.startswith(wanted) or len(content) != len(wanted) + 8 * math.prod(shape):
        return None
    return torch.frombuffer(content, dtype=torch.complex64, offset=len(wanted)).reshape(shape)
