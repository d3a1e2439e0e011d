"""CT acquisitions by a few numbers, fitted to the image they are to measure."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from medrecon.errors import UsageError
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.parallel_beam import ParallelBeam2D

PARALLEL: dict[str, type | tuple[type, ...]] = {"views": int, "start": (int, float), "span": (int, float)}
"""Parameters of :func:`parallel_preset` and their types."""

FAN: dict[str, type | tuple[type, ...]] = {
    **PARALLEL,
    "source_origin": (int, float),
    "source_detector": (int, float),
    "detector_shape": str,
}
"""Parameters of :func:`fan_preset` and their types."""


def parallel_preset(parameters: Mapping[str, Any], shape: tuple[int, int], pixel_size: float) -> XRayTransform:
    """Return a parallel-beam operator for images (H, W), with bins of one pixel that cover the whole diagonal.

    Parameters
    ----------
    parameters
        ``views``; ``start`` and ``span`` in degrees, 0 and 180 by default. The last view lies one step before
        ``start + span``.
    shape
        (H, W).
    pixel_size
        In mm.
    """
    return ParallelBeam2D(shape, _angles(parameters, 180.0), pixel_size=pixel_size)


def fan_preset(parameters: Mapping[str, Any], shape: tuple[int, int], pixel_size: float) -> XRayTransform:
    """Return a fan-beam operator for images (H, W), with bins that see one pixel at the rotation axis.

    Parameters
    ----------
    parameters
        ``views``, ``start``, ``span`` as in :func:`parallel_preset`, the span 360 by default;
        ``source_origin`` and ``source_detector`` in mm (595 and 1085.6, a clinical scanner);
        ``detector_shape`` ("arc" or "flat").
    shape
        (H, W).
    pixel_size
        In mm.
    """
    from medrecon.operators.ct.fan_beam import FanBeam2D

    orbit = float(parameters.get("source_origin", 595.0))
    distance = float(parameters.get("source_detector", 1085.6))
    kind = parameters.get("detector_shape", "arc")
    radius = math.hypot(*shape) / 2 * pixel_size
    if radius >= orbit:
        raise UsageError(
            f"ct-fan: an image of {shape[0]} x {shape[1]} pixels of {pixel_size:g} mm reaches {radius:.4g} mm from the "
            f"axis, beyond the source at {orbit:g} mm; is the pixel size right? Else raise source_origin"
        )
    angle = math.asin(radius / orbit)
    half = distance * (angle if kind == "arc" else math.tan(angle))
    pitch = pixel_size * distance / orbit
    return FanBeam2D(
        shape,
        _angles(parameters, 360.0),
        source_origin=orbit,
        source_detector=distance,
        detector_count=2 * math.ceil(half / pitch) + 1,
        detector_pitch=pitch,
        detector_shape=kind,
        pixel_size=pixel_size,
    )


def check_preset(where: str, parameters: Mapping[str, Any]) -> None:
    """Raise UsageError for values that make no acquisition."""
    if not parameters.get("views", 0) >= 1:
        raise UsageError(f"{where}: parameter views must be at least 1, got {parameters.get('views')!r}")
    for name in ("span", "source_origin", "source_detector"):
        if not 0 < parameters.get(name, 1) < math.inf:
            raise UsageError(f"{where}: parameter {name} must be positive, got {parameters[name]!r}")
    if abs(parameters.get("start", 0)) > 360 or parameters.get("span", 1) > 360:
        raise UsageError(f"{where}: parameters start and span are degrees, at most 360")
    if parameters.get("detector_shape", "arc") not in ("arc", "flat"):
        raise UsageError(f"{where}: parameter detector_shape must be arc or flat; got {parameters['detector_shape']!r}")


def _angles(parameters: Mapping[str, Any], usual: float) -> torch.Tensor:
    views, span = parameters["views"], parameters.get("span", usual)
    steps = torch.arange(views, dtype=torch.float64) / views
    return torch.deg2rad(parameters.get("start", 0.0) + span * steps)
