"""Helsinki Tomography Challenge 2022 and other data sets of the Finnish Inverse Problems Society (.mat).

A struct ``CtDataFull`` or ``CtDataLimited`` holds ``sinogram`` (views, bins) and ``parameters``: ``angles`` (degrees),
``numDetectorsPost``, ``distanceSourceOrigin``, ``distanceSourceDetector`` and ``pixelSizePost`` (mm). Fan beam on a
flat detector; the logarithm is taken and the centre of rotation corrected.
"""

import math
from typing import Any

import numpy as np
import torch

from medrecon.errors import InputError, OperatorError
from medrecon.io.mat import is_mat5, is_mat73
from medrecon.io.mat5_struct import mat5_struct, mat5_struct_names
from medrecon.io.options import ReadOptions
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.sinogram.assembly import RawSinogram, sinogram_scan
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.io.source import Source
from medrecon.operators.ct.fan_beam import FanBeam2D

_STRUCTS = ("CtDataFull", "CtDataLimited")
_PARAMETERS = ("angles", "distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost")


class Htc2022Reader:
    """Reader of the challenge's .mat files, versions 5 to 7.3."""

    name = "htc2022"

    def recognises(self, source: Source) -> bool:
        """Whether there is one of the structs."""
        return _struct(source) is not None

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Read the sinogram and its geometry."""
        struct = _struct(source)
        if struct is None:
            raise InputError(f"{source.path}: no struct {' or '.join(_STRUCTS)}")
        found = _fields(source, struct)
        sinogram = np.atleast_2d(found["sinogram"])
        angles = torch.deg2rad(torch.from_numpy(found["angles"].astype("f8").reshape(-1)))
        orbit, distance, pitch = (float(found[name].reshape(-1)[0]) for name in _PARAMETERS[1:])
        try:
            bins = sinogram.shape[1]
            pixel = options.pixel_size or pitch * orbit / distance
            operator = FanBeam2D(
                (bins, bins),
                angles,
                source_origin=orbit,
                source_detector=distance,
                detector_count=bins,
                detector_pitch=pitch,
                pixel_size=pixel,
            )
        except OperatorError as error:
            raise InputError(f"{source.path}: {error}") from error
        stack = SliceStack.from_tensor(torch.from_numpy(sinogram.astype("f4"))[None])
        raw = RawSinogram(stack, SinogramSchema(operator), slice_spacing=pixel)
        notes = (f"{struct}: {len(angles)} views over {math.degrees(float(angles.max() - angles.min())):.1f} degrees",)
        return sinogram_scan(source.path, self.name, raw, options, notes=notes)


def _struct(source: Source) -> str | None:
    """Return the name of the struct, None where there is none."""
    if is_mat5(source.head):
        try:
            names = mat5_struct_names(source.path)
        except InputError:
            return None
    elif source.hdf5 is not None and is_mat73(source.head):
        names = [name.partition("/")[0] for name in source.hdf5.datasets]
    else:
        return None
    return next((name for name in _STRUCTS if name in names), None)


def _fields(source: Source, struct: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Return sinogram and parameters, all of them numbers."""
    wanted = {"sinogram": f"{struct}/sinogram", **{name: f"{struct}/parameters/{name}" for name in _PARAMETERS}}
    if source.hdf5 is None:
        content = mat5_struct(source.path, struct, max_bytes=source.max_bytes)
        flat = {f"{struct}/{name}": value for name, value in content.items()}
    else:
        held = source.hdf5.datasets
        flat = {name: source.hdf5.read(name).transpose() for name in wanted.values() if name in held}
    missing = [name for name in wanted.values() if name not in flat]
    if missing:
        raise InputError(f"{source.path}: {', '.join(missing)} missing; expected a file of the challenge as published")
    return {name: flat[place] for name, place in wanted.items()}
