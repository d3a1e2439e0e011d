"""``medrecon info``: look before you reconstruct."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import (
    Axes,
    Calibration,
    Center,
    HalfFovShift,
    ImageSize,
    Json,
    Key,
    Mask,
    MaxBytes,
    MuWater,
    Nonfinite,
    PixelSize,
    Repetitions,
    SuppressRings,
    parse_center,
)

if TYPE_CHECKING:
    from medrecon.io.scan import Scan
    from medrecon.operators.ct.base import XRayTransform
    from medrecon.reconstructors.plan import ReconstructionPlan


def info(
    file: Path,
    /,
    *,
    key: Key = None,
    axes: Axes = None,
    mask: Mask = None,
    calibration: Calibration = None,
    repetitions: Repetitions = "average",
    nonfinite: Nonfinite = "error",
    half_fov_shift: HalfFovShift = False,
    center: Center = None,
    suppress_rings: SuppressRings = False,
    pixel_size: PixelSize = None,
    image_size: ImageSize = None,
    mu_water: MuWater = None,
    max_bytes: MaxBytes = None,
    as_json: Json = False,
) -> None:
    """Say what a raw file holds: format, matrix, coils, acceleration, geometry, and what would run and why.

    Parameters
    ----------
    file
        Raw data: fastMRI, ISMRMRD, BART .cfl, Data Exchange, LoDoPaB, HTC2022, .npy, .npz, .mat, or
        measurements written by medrecon.
    """
    from medrecon.io import ReadOptions, read_scan

    options = ReadOptions(
        key=key,
        axes=axes,
        mask=mask,
        calibration=calibration,
        repetitions=repetitions,
        nonfinite=nonfinite,
        half_fov_shift=half_fov_shift,
        center=parse_center(center),
        suppress_rings=suppress_rings,
        pixel_size=pixel_size,
        image_size=image_size,
        mu_water=mu_water,
        max_bytes=max_bytes,
    )
    scan = read_scan(file, options)
    found = describe(scan)
    if as_json:
        print_json(found)
        return
    rows = [(name.replace("_", " "), _text(value)) for name, value in found.items() if value not in (None, {}, [])]
    print_table("", ("", ""), rows)


def describe(scan: "Scan", plan: "ReconstructionPlan | None" = None) -> dict[str, Any]:
    """Return what there is to say about a scan (the first slice of a plan with data), ready for JSON."""
    from medrecon.io.scan import CartesianAcquisition
    from medrecon.operators.ct.base import XRayTransform
    from medrecon.reconstructors.choice import first_slice
    from medrecon.reconstructors.plan import CHECKPOINT, ReconstructionPlan, settled

    plan, reason = settled(plan or ReconstructionPlan(), scan)
    first = first_slice(scan, plan.slices)
    acquisition = scan.acquisition
    found: dict[str, Any] = {"file": scan.source.name, "format": scan.format, "modality": scan.modality}
    found["slices"] = len(scan.measurements)
    if isinstance(acquisition, CartesianAcquisition):
        coils, height, width = scan.measurements.shape
        found |= {
            "coils": coils,
            "k_space": [height, width],
            "reconstruction": list(acquisition.matrix or (height, width)),
        }
        found |= _sampling(scan, acquisition, first)
    elif isinstance(acquisition, XRayTransform):
        found |= _beams(acquisition)
    else:
        found["operator"] = acquisition.extra_repr()
    x, y, z = scan.geometry.spacing
    found["spacing_mm"] = {"column": round(x, 4), "row": round(y, 4), "slice": round(z, 4)}
    found["orientation"] = "from the file" if scan.geometry.oriented else "unknown, axial by convention"
    found["reference"] = scan.reference is not None
    found["header"] = dict(scan.header)
    found["notes"] = list(scan.notes)
    found["method"] = {"name": plan.method, "reason": reason}
    if CHECKPOINT in plan.parameters:
        found["method"]["checkpoint"] = Path(plan.parameters[CHECKPOINT]).name
    return found


def _beams(operator: "XRayTransform") -> dict[str, Any]:
    from medrecon.operators import FanBeam2D

    views, bins = operator.data_shape[1:]
    found: dict[str, Any] = {
        "beam": f"fan, {operator.detector_shape} detector" if isinstance(operator, FanBeam2D) else "parallel",
        "views": views,
        "degrees": round(360 * operator.turns, 3),
        "bins": bins,
        "pitch_mm": round(operator.detector_pitch, 6),
        "center_of_rotation_mm": round(operator.center_of_rotation, 6),
        "reconstruction": list(operator.image_shape[1:]),
    }
    if isinstance(operator, FanBeam2D):
        found |= {"source_origin_mm": operator.source_origin, "source_detector_mm": operator.source_detector}
    return found


def _sampling(scan: "Scan", acquisition: Any, index: int) -> dict[str, Any]:  # noqa: ANN401 (a CartesianAcquisition; imported late)
    from medrecon.errors import InputError
    from medrecon.operators.coils import find_calibration_region
    from medrecon.reconstructors.mri import acceleration, sampling_mask

    kspace = scan.measurements[index]
    mask = sampling_mask(kspace, acquisition, index)
    try:
        region = find_calibration_region(kspace, mask, max_size=max(kspace.shape[-2:]))
        calibration: Any = list(region.shape)
    except InputError:
        calibration = "none found"
    if acquisition.calibration is not None:
        calibration = f"separate scan {list(acquisition.calibration.shape)}"
    if acquisition.maps is not None:
        calibration = f"not needed, maps given {list(acquisition.maps.shape)}"
    return {"acceleration": round(acceleration(mask), 3), "calibration": calibration}


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list) and value and isinstance(value[0], str):
        return "\n".join(value)
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
