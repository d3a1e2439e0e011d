"""LoDoPaB-CT observations (Leuschner et al., Sci. Data 8:109, 2021).

``observation_*_NNN.hdf5`` holds ``data`` (n, 1000, 513): parallel beams, angles (k + 1/2) π / 1000, bins whose
centres share [-0.1838, 0.1838] m, line integrals divided by μ_max = 81.35858 1/m. The images beside them
(``ground_truth_*_NNN.hdf5``, n x 362 x 362 over 0.26 m) are attenuation divided by μ_max. Everything is turned
into 1/mm here.
"""

import math
import re
from pathlib import Path

import torch

from medrecon.errors import InputError
from medrecon.io.hdf5 import Hdf5File
from medrecon.io.options import ReadOptions
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.sinogram.assembly import RawSinogram, sinogram_scan
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.io.source import Source
from medrecon.operators.ct.parallel_beam import ParallelBeam2D

MU_MAX = 3071 * (20 - 0.02) / 1000 + 20
"""In 1/m: the attenuation of 3071 HU with 20 1/m for water and 0.02 1/m for air."""

_VIEWS, _BINS, _SIZE, _EXTENT = 1000, 513, 362, 260.0
_DETECTOR = 2 * 0.5 * math.sqrt(2) * _EXTENT  # 367.7 mm: the diagonal of the image


class LoDoPaBReader:
    """Reader of LoDoPaB-CT observation files."""

    name = "lodopab"

    def recognises(self, source: Source) -> bool:
        """Whether the only dataset is ``data`` of (n, 1000, 513)."""
        if source.hdf5 is None or set(source.hdf5.datasets) != {"data"}:
            return False
        return source.hdf5.datasets["data"].shape[1:] == (_VIEWS, _BINS)

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Describe the scan, with the true images where their file lies beside it."""
        hdf5 = source.hdf5
        if hdf5 is None:
            raise InputError(f"{source.path} is not an HDF5 file, expected LoDoPaB-CT")
        info = hdf5.info("data")
        if info.refused is not None or info.dtype is None or info.dtype.kind != "f" or not info.shape[0]:
            raise InputError(f"{source.path}: 'data' is {info.shape} {info.dtype}, expected floating-point numbers")
        count, pixel = info.shape[0], _EXTENT / _SIZE
        angles = (torch.arange(_VIEWS, dtype=torch.float64) + 0.5) * (math.pi / _VIEWS)
        operator = ParallelBeam2D(
            (_SIZE, _SIZE), angles, detector_count=_BINS, detector_pitch=_DETECTOR / _BINS, pixel_size=pixel
        )
        raw = RawSinogram(
            rows=SliceStack(count, (_VIEWS, _BINS), lambda index: torch.from_numpy(hdf5.read("data", (index,)))),
            schema=SinogramSchema(operator, scale=MU_MAX),
        )
        notes = [f"line integrals were stored divided by {MU_MAX:.3f}; images are in 1/mm, slices are not neighbours"]
        reference = _images(source.path, count, source.max_bytes)
        return sinogram_scan(source.path, self.name, raw, options, reference=reference, notes=tuple(notes))


def _images(path: Path, count: int, max_bytes: int) -> SliceStack | None:
    """Return the ground truth in 1/mm, where its file has the same number of images."""
    beside = path.with_name(re.sub("^observation", "ground_truth", path.name))
    if beside == path or not beside.is_file():
        return None
    file = Hdf5File(beside, max_bytes=max_bytes)
    info = file.datasets.get("data")
    if info is None or info.shape != (count, _SIZE, _SIZE) or info.refused is not None:
        return None
    scale = MU_MAX / 1000
    return SliceStack(
        count, (_SIZE, _SIZE), lambda index: torch.from_numpy(file.read("data", (index,))).float() * scale
    )
