"""From a scan to an image: every slice through the chosen method, with the evidence for trusting it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from medrecon.operators.coils import MapMethod
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.hounsfield import to_hounsfield
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.mri import (
    acceleration,
    is_fully_sampled,
    root_sum_of_squares,
    sampling_mask,
    single_coil_operator,
    slice_operator,
)
from medrecon.reconstructors.registry import make_method

RSS = "rss"
DEFAULT_METHOD = "tv"
FBP = "fbp"
_NO_BORDER = 1.02
_DOUBTFUL = 0.5

_logger = logging.getLogger("medrecon")


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is done to a scan.

    Parameters
    ----------
    method
        Name of a reconstructor, "rss" (root sum of squares of the zero-filled coil images, MRI only)
        or "auto": see :func:`choose_method`.
    parameters
        Of the method.
    maps
        How coil sensitivities are estimated where the scan has none.
    slices
        Which slices, as a range; None for all.
    device
        Where to compute.
    seed
        For methods that draw random numbers.
    crop_readout
        Whether read-out oversampling is removed before instead of after: see
        :func:`~medrecon.io.oversampling.without_readout_oversampling`. What a model was trained on.
    """

    method: str = "auto"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    maps: MapMethod = "espirit"
    slices: range | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    crop_readout: bool = False


def choose_method(scan: Scan, index: int = 0) -> tuple[str, str]:
    """Return the method that suits a scan, and the reason.

    Fully sampled k-space needs no more than an inverse FFT, a sinogram with one view in half a turn for
    every second bin no more than filtered back-projection; everything else gets the default method.
    """
    acquisition = scan.acquisition
    if isinstance(acquisition, CartesianAcquisition):
        mask = sampling_mask(scan.measurements[index], acquisition, index)
        if is_fully_sampled(mask):
            rate = acceleration(mask)
            gaps = "fully sampled" if rate < _NO_BORDER else f"sampled without gaps, R = {rate:.2f} by an empty border"
            return RSS, f"the k-space is {gaps}"
        return DEFAULT_METHOD, f"the k-space is undersampled, R = {acceleration(mask):.2f}"
    if isinstance(acquisition, XRayTransform):
        views, bins = acquisition.data_shape[1:]
        found = f"{views} views of {bins} bins"
        if views >= bins / 2 * max(1.0, acquisition.turns * 2):
            return FBP, f"the sinogram is densely sampled, {found}"
        return DEFAULT_METHOD, f"the sinogram is sparse, {found}"
    if acquisition.unitary:
        return "adjoint", "the operator is unitary"
    return DEFAULT_METHOD, f"the operator {type(acquisition).__name__} loses information"


def first_slice(scan: Scan, slices: range | None = None) -> int:
    """Return the first slice that holds data; EmptyDataError where none of them does."""
    candidates = range(len(scan.measurements)) if slices is None else slices
    for index in candidates:
        try:
            scan.measurements[index]
        except EmptyDataError:
            if index == candidates[-1]:
                raise
        else:
            return index
    raise UsageError(f"{scan.source.name}: no slices are asked for")


def prepare_method(plan: ReconstructionPlan) -> Reconstructor | None:
    """Return the method of a plan, for any number of scans; None where each scan decides ("auto") and for "rss".

    Raises
    ------
    UsageError
        For a method that is not there or parameters that it refuses, before any data are read.
    """
    return None if plan.method in ("auto", RSS) else make_method(plan.method, plan.parameters).to(plan.device)


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
        Of :func:`prepare_method`, so that a trained model is read once for many scans.
    progress
        Called with the share of the work that is done, 0 … 1.

    Raises
    ------
    NumericalError
        Where a slice holds NaN or a method diverges.
    """
    if plan.crop_readout:
        scan = without_readout_oversampling(scan)
    slices = range(len(scan.measurements)) if plan.slices is None else plan.slices
    if not slices or slices[-1] >= len(scan.measurements) or slices[0] < 0:
        raise UsageError(
            f"slices {slices.start}:{slices.stop} do not lie in this scan of {len(scan.measurements)}; "
            "the first is 0 and the last is left out, e.g. --slices 0:10"
        )
    name, reason = (
        choose_method(scan, first_slice(scan, slices)) if plan.method == "auto" else (plan.method, "asked for")
    )
    if name == RSS and plan.parameters:
        raise UsageError(
            f"method 'rss' ({reason}) takes no parameters, got {', '.join(plan.parameters)}; leave out --lambda and "
            "--iterations, or name another --method"
        )
    if name == RSS and not isinstance(scan.acquisition, CartesianAcquisition):
        raise UsageError(f"method 'rss' is for coil images, not for {type(scan.acquisition).__name__}; use 'adjoint'")
    if name == RSS:
        reconstructor = None
    elif reconstructor is None:
        reconstructor = make_method(name, plan.parameters).to(plan.device)
    _logger.info("method %s: %s", name, reason)

    planes: list[np.ndarray[Any, np.dtype[np.float32]] | None] = []
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
            records.append({"slice": index, "empty": True, "residual": None})
            continue
        generator = torch.Generator(plan.device).manual_seed(plan.seed + index)
        plane, record = _slice(scan, plan, reconstructor, data, index, generator, report)
        parameters = record.pop("parameters", {})
        planes.append(_finished(plane, scan, index))
        records.append({"slice": index, **record})
        report(1, 1)
    residual = _summary(records)
    if residual is not None and residual["mean"] > _DOUBTFUL:
        _logger.warning(
            "residual %.2f: the images explain little of the data; are --maps, --calibration, --mask and --axes right?",
            residual["mean"],
        )
    provenance = {
        "method": name,
        "method_requested": plan.method,
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
    black = np.zeros_like(next(plane for plane in planes if plane is not None))
    volume = np.stack([black if plane is None else plane for plane in planes])
    return Image(volume, geometry, scan.modality, provenance, scan.header)


def _slice(
    scan: Scan,
    plan: ReconstructionPlan,
    reconstructor: Reconstructor | None,
    data: Tensor,
    index: int,
    generator: torch.Generator,
    report: Callable[[int, int], None],
) -> tuple[Tensor, dict[str, Any]]:
    """Return one slice (rows, columns) and what there is to say about it."""
    acquisition = scan.acquisition
    record: dict[str, Any] = {}
    if isinstance(acquisition, CartesianAcquisition):
        mask = sampling_mask(data, acquisition, index)
        record["acceleration"] = round(acceleration(mask), 4)
        if reconstructor is None:
            operator: LinearOperator = single_coil_operator(data, mask)
            coils = operator.adjoint(data[:, None])
            # each coil image explains its own samples, the combined one none: it has no residual
            return root_sum_of_squares(coils[:, 0]), {**record, "maps": "none (root sum of squares)", "residual": None}
        built = slice_operator(data, acquisition, index, method=plan.maps)
        operator, y = built.operator, built.measurements
        record["maps"] = built.maps
    else:
        operator, y = acquisition.to(plan.device), data[None]
        if reconstructor is None:
            raise UsageError("method 'rss' needs coil images")
    x = reconstructor(y, operator, generator=generator, progress=report)
    record["parameters"] = dict(reconstructor.settings(operator))
    residual = torch.linalg.vector_norm(operator(x) - y) / torch.linalg.vector_norm(y)
    record["residual"] = float(residual)
    if x.is_complex():
        return root_sum_of_squares(x[0]), record
    if x.shape[1] > 1:
        raise UsageError(f"{type(operator).__name__} gives {x.shape[1]} channels; an image file holds one")
    return x[0, 0], record


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
