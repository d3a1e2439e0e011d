"""Data Exchange: tomography from synchrotrons (De Carlo et al., J. Synchrotron Rad. 21:1224, 2014).

``exchange/data`` (views, rows, bins) with ``data_white``, ``data_dark`` (fields, rows, bins) and ``theta``.
Every detector row is one slice.
"""

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.hdf5 import Hdf5File
from medrecon.io.options import ReadOptions
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.sinogram.assembly import RawSinogram, sinogram_scan
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.io.source import Source
from medrecon.operators.ct.parallel_beam import ParallelBeam2D

_DATA, _WHITE, _DARK, _THETA = (f"exchange/{name}" for name in ("data", "data_white", "data_dark", "theta"))
_RADIANS = ("rad", "radian", "radians")


class DataExchangeReader:
    """Reader of Data Exchange files."""

    name = "data-exchange"

    def recognises(self, source: Source) -> bool:
        """Whether there is ``exchange/data``."""
        return source.hdf5 is not None and _DATA in (source.hdf5.datasets.keys() | source.hdf5.refused.keys())

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Describe the scan; the detector rows are read when they are asked for."""
        hdf5 = source.hdf5
        if hdf5 is None:
            raise InputError(f"{source.path} is not an HDF5 file, expected Data Exchange")
        views, rows, bins = _three_axes(hdf5, _DATA)
        notes = ["--axes was ignored: the format defines its axes"] if options.axes is not None else []
        pixel = options.pixel_size
        if pixel is None:
            pixel = 1.0
            notes.append("the file states no pixel size: 1 mm assumed, attenuation is per pixel (--pixel-size sets it)")
        white = _three_axes(hdf5, _WHITE, rows, bins) if _WHITE in hdf5.datasets else None
        dark = _three_axes(hdf5, _DARK, rows, bins) if _DARK in hdf5.datasets else None
        if white is None:
            notes.append("no white field (exchange/data_white): the data are taken for line integrals")
        if dark is None and white is not None:
            notes.append("no dark field (exchange/data_dark): taken as 0")
        raw = RawSinogram(
            rows=SliceStack(rows, (views, bins), lambda row: _rows(hdf5, _DATA, row)),
            schema=SinogramSchema(
                ParallelBeam2D((bins, bins), _angles(hdf5, views), detector_count=bins, pixel_size=pixel),
                quantity="line_integral" if white is None else "counts",
            ),
            white=lambda row: _rows(hdf5, _WHITE, row) if white is not None else None,
            dark=lambda row: _rows(hdf5, _DARK, row) if dark is not None else None,
            center_known=False,
            slice_spacing=pixel,
        )
        return sinogram_scan(source.path, self.name, raw, options, notes=tuple(notes))


def _three_axes(hdf5: Hdf5File, name: str, rows: int | None = None, bins: int | None = None) -> tuple[int, int, int]:
    info = hdf5.info(name)
    if info.refused is not None:
        raise InputError(f"{hdf5.path}: '{name}' {info.refused}")
    fits = (
        len(info.shape) == 3
        and 0 not in info.shape
        and info.shape[1:] == (rows or info.shape[1], bins or info.shape[2])
    )
    if not fits or info.dtype is None or info.dtype.kind not in "biuf":
        expected = f"(fields, {rows}, {bins})" if rows else "(views, rows, bins)"
        raise InputError(
            f"{hdf5.path}: '{name}' has shape {info.shape} and type {info.dtype}, expected real {expected}"
        )
    first, second, third = info.shape
    return first, second, third


def _rows(hdf5: Hdf5File, name: str, row: int) -> Tensor:
    return torch.from_numpy(hdf5.read(name, (slice(None), row)).astype("f8"))


def _angles(hdf5: Hdf5File, views: int) -> Tensor:
    if _THETA not in hdf5.datasets:
        raise InputError(
            f"{hdf5.path}: no angles (exchange/theta); add them as {views} degrees, e.g. with h5py: "
            f"f['exchange/theta'] = numpy.linspace(0, 180, {views}, endpoint=False)"
        )
    info = hdf5.info(_THETA)
    if info.dtype is None or info.dtype.kind not in "biuf":
        raise InputError(f"{hdf5.path}: exchange/theta is {info.dtype or 'no array of numbers'}, expected angles")
    theta = hdf5.read(_THETA).astype("f8").reshape(-1)
    if len(theta) != views:
        raise InputError(f"{hdf5.path}: exchange/theta has {len(theta)} angles for {views} views; they must agree")
    if not np.isfinite(theta).all():
        raise InputError(f"{hdf5.path}: exchange/theta holds NaN or Inf, expected {views} angles in degrees")
    angles = torch.from_numpy(theta)
    unit = str(hdf5.attributes.get(_THETA, {}).get("units", "degrees")).lower()
    return angles if unit.startswith(_RADIANS) else torch.deg2rad(angles)
