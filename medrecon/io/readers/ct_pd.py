"""DICOM-CT-PD: raw projections of clinical scanners, one file a view (Chen et al., Med. Phys. 42:6964, 2015).

What the TCIA collection LDCT-and-Projection-data is published in. The values are line integrals. Every slice
is rebinned to a fan beam (:mod:`medrecon.operators.ct.rebinning`), with the spacing of the detector rows at
the axis. Positions along the table come from the files; the directions in the slice are a convention.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import InputError, OperatorError
from medrecon.io.dicom_preflight import is_dicom
from medrecon.io.geometry import Geometry
from medrecon.io.options import ReadOptions
from medrecon.io.readers.ct_pd_views import ProjectionSeries, has_projection, read_series
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.source import Source
from medrecon.operators.ct.fan_beam import FanBeam2D
from medrecon.operators.ct.rebinning import ConeBeamScan, fan_angles, fan_sinogram, slice_positions

_SIZE = 512
_MU_WATER = (0.015, 0.03)  # 1/mm, what water can have between 40 and 140 keV
_MISSING = 0.02


class CtPdReader:
    """Reader of a folder of projections, named by any file in it."""

    name = "dicom-ct-pd"

    def recognises(self, source: Source) -> bool:
        """Whether the file has the private elements of a projection."""
        return is_dicom(source.path) and has_projection(source.path)

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Read the headers of all views; slices are rebinned when they are asked for."""
        series = read_series(source.path, source.max_bytes)
        helix = series.scan
        try:
            positions = slice_positions(helix)
            operator = _operator(helix, options)
        except (InputError, OperatorError) as error:
            raise InputError(f"{source.path.parent}: {error}") from error
        notes = [
            f"{len(helix.angles)} views, {abs(helix.step) * len(helix.angles) / 2 / math.pi:.1f} turns; "
            f"{len(positions)} slices have a full turn around them, {helix.collimation:.3g} mm apart",
            "cone-beam data are rebinned slice by slice (Noo et al. 1999), an approximation for small cone angles",
            *series.notes,
        ]
        mu_water, said = _water(series)
        notes += said
        view = lru_cache(maxsize=2 * helix.views_per_turn)(series.view)

        def read(index: int) -> Tensor:
            sinogram, _ = fan_sinogram(helix, float(positions[index]), view)
            return sinogram.float()[None]

        _, missing = fan_sinogram(helix, float(positions[len(positions) // 2]), view)
        if missing > _MISSING:
            notes.append(
                f"{missing:.0%} of the rays of the middle slice miss the detector and take its outermost row: the "
                "pitch is large for slice-by-slice rebinning"
            )
        pixel, size = operator.pixel_size, operator.image_shape[1]
        spacing = float(positions[1] - positions[0]) if len(positions) > 1 else helix.collimation
        geometry = Geometry.from_spacing((pixel, pixel, spacing), (len(positions), size, size))
        return Scan(
            source=source.path,
            format=self.name,
            measurements=SliceStack(len(positions), operator.data_shape, read),
            acquisition=operator,
            geometry=geometry,
            modality="CT",
            header={"slice_thickness": helix.collimation},
            mu_water=options.mu_water or mu_water,
            notes=tuple(notes),
        )


def first_projection(folder: Path) -> Path:
    """Return a file of a folder of projections, for :func:`medrecon.io.read_scan` of the folder."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    for path in files[:100]:
        if is_dicom(path) and has_projection(path):
            return path
    raise InputError(
        f"{folder} is a folder without DICOM-CT-PD projections; name one file of raw data (a folder of DICOM images "
        "is for 'medrecon simulate')"
    )


def _operator(helix: ConeBeamScan, options: ReadOptions) -> FanBeam2D:
    """Return the fan beam that all slices share, about the field of view that every view sees."""
    gamma = fan_angles(helix).abs()
    radius = helix.source_origin * math.sin(min(float(gamma[0]), float(gamma[-1])))
    size = options.image_size or _SIZE
    turn = helix.views_per_turn
    angles = helix.angles[0] + math.copysign(2 * math.pi / turn, helix.step) * torch.arange(turn, dtype=torch.float64)
    return FanBeam2D(
        (size, size),
        angles,
        source_origin=helix.source_origin,
        source_detector=helix.source_detector,
        detector_count=helix.columns,
        detector_pitch=helix.column_pitch,
        detector_shape="arc" if helix.arc else "flat",
        pixel_size=options.pixel_size or 2 * radius / size / math.sqrt(2),
        detector_offset=((helix.columns - 1) / 2 - helix.central_column) * helix.column_pitch,
    )


def _water(series: ProjectionSeries) -> tuple[float | None, list[str]]:
    """Return the attenuation of water in 1/mm, if the file's is plausible in 1/mm or 1/cm."""
    value = series.water
    low, high = _MU_WATER
    if value is not None and low <= value <= high:
        return value, []
    if value is not None and low <= value / 10 <= high:
        return value / 10, [f"the attenuation of water is stated as {value:.4g}, taken as 1/cm"]
    found = "not stated" if value is None or not np.isfinite(value) else f"stated as {value:.4g}"
    return None, [f"the attenuation of water is {found}: images are in 1/mm (--mu-water sets it)"]
