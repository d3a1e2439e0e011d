"""From a scan to an image: every slice through the chosen method, with the evidence for trusting it."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import EmptyDataError, NumericalError, UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.oversampling import without_readout_oversampling
from medrecon.io.scan import CartesianAcquisition, Scan
from medrecon.metrics import centre_crop
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.hounsfield import to_hounsfield
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.choice import RSS
from medrecon.reconstructors.mri import (
    acceleration,
    root_sum_of_squares,
    sampling_mask,
    single_coil_operator,
    slice_operator,
)
from medrecon.reconstructors.plan import ReconstructionPlan, settled
from medrecon.reconstructors.registry import make_method
from medrecon.reconstructors.sampling import PriorReconstructor

Plane = np.ndarray[Any, np.dtype[np.float32]]
_DOUBTFUL = 0.5

_logger = logging.getLogger("medrecon")


def reconstruct_scan(
    scan: Scan,
    plan: ReconstructionPlan,
    *,
    reconstructor: Reconstructor | None = None,
    progress: Callable[[float], None] | None = None,
) -> Image:
    """Reconstruct the slices of a scan.

    Returns the magnitude (MRI) or the real image (CT in Hounsfield units where the scan states the
    attenuation of water, else in 1/mm) on the reconstruction grid, float32, with
    provenance: the method that was used, its parameters, where the maps come from and the data
    residual ‖A x - y‖ / ‖y‖ of every slice.

    Parameters
    ----------
    scan, plan
        What and how.
    reconstructor
        Of :func:`~medrecon.reconstructors.plan.prepare_method`, so that a trained model is read once for many scans.
    progress
        Called with the share of the work that is done, 0 … 1.

    Raises
    ------
    NumericalError
        Where a slice holds NaN or a method diverges.
    """
    slices = range(len(scan.measurements)) if plan.slices is None else plan.slices
    if not slices or slices[-1] >= len(scan.measurements) or slices[0] < 0:
        raise UsageError(
            f"slices {slices.start}:{slices.stop} do not lie in this scan of {len(scan.measurements)}; "
            "the first is 0 and the last is left out, e.g. --slices 0:10"
        )
    requested = plan.method
    plan, reason = settled(plan, scan)
    if plan.method == RSS:
        reconstructor = None
    elif reconstructor is None:
        reconstructor = make_method(plan.method, plan.parameters).to(plan.device)
    if plan.crop_readout:
        scan = without_readout_oversampling(scan)
    _logger.info("method %s: %s", plan.method, reason)

    if plan.uncertainty and isinstance(reconstructor, PriorReconstructor) and reconstructor.samples < 2:
        raise UsageError("uncertainty: a single draw has no deviation; give --samples 2 or more")
    planes: list[Plane | None] = []
    deviations: list[Plane | None] = []
    records: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    for done, index in enumerate(slices):

        def report(step: int, steps: int, done: int = done) -> None:
            if progress is not None:
                progress((done + step / max(steps, 1)) / len(slices))

        try:
            data = scan.measurements[index].to(plan.device)
        except EmptyDataError:
            _logger.warning("slice %d holds no data at all: its image is left black", index)
            planes.append(None)
            deviations.append(None)
            records.append({"slice": index, "empty": True, "residual": None})
            continue
        generator = torch.Generator(plan.device).manual_seed(plan.seed + index)
        plane, deviation, record = _slice(scan, plan, reconstructor, data, index, generator, report)
        parameters = record.pop("parameters", {})
        planes.append(_finished(plane, scan, index))
        if deviation is not None:
            deviations.append(_finished(deviation, scan, index) - _finished(torch.zeros_like(deviation), scan, index))
        records.append({"slice": index, **record})
        report(1, 1)
    residual = _summary(records)
    if residual is not None and residual["mean"] > _DOUBTFUL:
        _logger.warning(
            "residual %.2f: the images explain little of the data; are --maps, --calibration, --mask and --axes right?",
            residual["mean"],
        )
    provenance = {
        "method": plan.method,
        "method_requested": requested,
        "method_reason": reason,
        "parameters": parameters,
        "slices": records,
        "residual": residual,
        "device": str(plan.device),
        "seed": plan.seed,
        "notes": list(scan.notes),
    }
    if isinstance(scan.acquisition, XRayTransform):
        provenance |= _ct_record(scan, scan.acquisition)
    geometry = slices_geometry(scan.geometry, slices)
    spread = _stack(deviations) if plan.uncertainty else None
    return Image(_stack(planes), geometry, scan.modality, provenance, scan.header, spread)


def _stack(planes: list[Plane | None]) -> Plane:
    """Return a volume, black where a slice is missing."""
    black = np.zeros_like(next(plane for plane in planes if plane is not None))
    return np.stack([black if plane is None else plane for plane in planes])


def _slice(
    scan: Scan,
    plan: ReconstructionPlan,
    reconstructor: Reconstructor | None,
    data: Tensor,
    index: int,
    generator: torch.Generator,
    report: Callable[[int, int], None],
) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """Return one slice (rows, columns), its deviation where that is wanted, and what there is to say about it."""
    acquisition = scan.acquisition
    record: dict[str, Any] = {}
    if isinstance(acquisition, CartesianAcquisition):
        mask = sampling_mask(data, acquisition, index)
        record["acceleration"] = round(acceleration(mask), 4)
        if reconstructor is None:
            operator: LinearOperator = single_coil_operator(data, mask)
            coils = operator.adjoint(data[:, None])
            # each coil image explains its own samples, the combined one none: it has no residual
            return (
                root_sum_of_squares(coils[:, 0]),
                None,
                {**record, "maps": "none (root sum of squares)", "residual": None},
            )
        built = slice_operator(data, acquisition, index, method=plan.maps or "espirit")
        operator, y = built.operator, built.measurements
        record["maps"] = built.maps
    else:
        operator, y = acquisition.to(plan.device), data[None]
        if reconstructor is None:
            raise UsageError("method 'rss' needs coil images")
    deviation = None
    if plan.uncertainty and isinstance(reconstructor, PriorReconstructor):
        draws = reconstructor.draws(y, operator, generator=generator, progress=report)
        x, deviation = draws.mean(0), torch.stack([_plane(draw, operator) for draw in draws]).std(0)
    else:
        x = reconstructor(y, operator, generator=generator, progress=report)
    record["parameters"] = dict(reconstructor.settings(operator))
    residual = torch.linalg.vector_norm(operator(x) - y) / torch.linalg.vector_norm(y)
    record["residual"] = float(residual)
    return _plane(x, operator), deviation, record


def _plane(x: Tensor, operator: LinearOperator) -> Tensor:
    """Return what an image file holds of images (1, C, H, W)."""
    if x.is_complex():
        return root_sum_of_squares(x[0])
    if x.shape[1] > 1:
        raise UsageError(f"{type(operator).__name__} gives {x.shape[1]} channels; an image file holds one")
    return x[0, 0]


def _finished(plane: Tensor, scan: Scan, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not bool(torch.isfinite(plane).all()):
        raise NumericalError(f"{scan.source.name}: the reconstruction of slice {index} holds NaN or Inf")
    if scan.mu_water is not None:
        plane = to_hounsfield(plane, mu_water=scan.mu_water)
    array = plane.float().cpu().numpy()
    matrix = scan.acquisition.matrix if isinstance(scan.acquisition, CartesianAcquisition) else None
    return centre_crop(array, *matrix) if matrix else array


def _ct_record(scan: Scan, operator: XRayTransform) -> dict[str, Any]:
    unit = "1/mm" if scan.mu_water is None else "HU"
    return {"unit": unit, "mu_water": scan.mu_water, "operator": operator.config()}


def _summary(records: list[dict[str, Any]]) -> dict[str, float] | None:
    values = [record["residual"] for record in records if record["residual"] is not None]
    return {"mean": float(np.mean(values)), "max": float(np.max(values))} if values else None


def slices_geometry(geometry: Geometry, slices: range) -> Geometry:
    """Geometry of some slices of a stack: the first one's position, the distance times the step."""
    start = geometry.shifted(slices=slices.start)
    affine = start.affine.copy()
    affine[:, 2] *= slices.step
    return Geometry(affine, geometry.oriented)
