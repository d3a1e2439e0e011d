"""From the array and the metadata of a MONAI pipeline back to a scan."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrecon.errors import OperatorError, UsageError
from medrecon.io.checks import with_checks
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack
from medrecon.operators.base import LinearOperator
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.registry import operator_from_config
from medrecon.pipelines.metadata import Meta, as_array, geometry_of, header_of


def measured_scan(array: Tensor, meta: Meta, operator: LinearOperator | None = None) -> Scan:
    """Build the scan that an array (channels, slices, …) and its metadata describe.

    Parameters
    ----------
    array
        k-space (coils, slices, H, W) complex; or the measurements (C, slices, …) of slices that an operator maps to
        (C, …), e.g. sinograms (1, slices, views, bins).
    meta
        See :func:`medrecon.pipelines.metadata.scan_meta`; what is missing counts as unknown.
    operator
        Takes the place of the acquisition in the metadata.

    Raises
    ------
    UsageError
        Where the array cannot be what it is taken for.
    """
    if operator is None and "operator" in meta:
        # MONAI's collation makes None of an empty dictionary
        tensors = {str(name): torch.as_tensor(value).cpu() for name, value in (meta["operator_tensors"] or {}).items()}
        operator = operator_from_config(json.loads(str(meta["operator"])), tensors)
    acquisition = _cartesian(array, meta) if operator is None else _fitting(array, operator)
    stack = array.movedim(1, 0)
    if isinstance(acquisition, CartesianAcquisition):
        rows, columns = acquisition.matrix or (array.shape[2], array.shape[3])
    else:
        rows, columns = acquisition.image_shape[-2:]
    scan = Scan(
        source=Path(str(meta.get("filename_or_obj", "measurements"))),
        format=str(meta.get("format", "array")),
        measurements=SliceStack.from_tensor(stack),
        acquisition=acquisition,
        geometry=geometry_of(meta, (len(stack), rows, columns)),
        modality=str(meta.get("modality", modality_of(operator))),
        header=header_of(meta),
        mu_water=float(meta["mu_water"]) if "mu_water" in meta else None,
        notes=tuple(str(meta.get("notes", "")).splitlines()),
    )
    return with_checks(scan, "error")


def modality_of(operator: LinearOperator | None) -> str:
    """Return the modality of what an operator measures, where nothing else tells."""
    if operator is None or isinstance(operator, CartesianMRI):
        return "MR"
    return "CT" if isinstance(operator, XRayTransform) else "OT"


def _cartesian(array: Tensor, meta: Meta) -> CartesianAcquisition:
    if array.ndim != 4 or not array.is_complex():
        raise UsageError(
            f"expected k-space (coils, slices, H, W), complex, got shape {tuple(array.shape)} and {array.dtype}; "
            "LoadImaged keeps the imaginary part with dtype=np.complex64 only, and other measurements need their "
            "operator (SinogramReader and SimulateMeasurementsd provide it)"
        )
    mask = torch.from_numpy(as_array(meta["sampling_mask"]) > 0) if "sampling_mask" in meta else None
    if mask is not None:
        mask = mask.reshape(*[1] * (3 - mask.ndim), *mask.shape)
        whole = (array.shape[1], *array.shape[2:])
        if any(size not in (1, full) for size, full in zip(mask.shape, whole, strict=True)):
            raise UsageError(
                f"the sampling mask {tuple(mask.shape)} does not fit k-space of {whole} (slices, H, W); crop neither"
            )
    calibration = _stack(meta.get("calibration"))
    matrix = as_array(meta["recon_matrix"]).tolist() if "recon_matrix" in meta else None
    return CartesianAcquisition(
        mask=mask,
        maps=torch.from_numpy(as_array(meta["coil_maps"])) if "coil_maps" in meta else None,
        calibration=calibration,
        matrix=None if matrix is None else (int(matrix[0]), int(matrix[1])),
    )


def _stack(value: Any) -> SliceStack | None:  # noqa: ANN401 (metadata)
    return None if value is None else SliceStack.from_tensor(torch.from_numpy(as_array(value)))


def _fitting(array: Tensor, operator: LinearOperator) -> LinearOperator:
    shape = (array.shape[0], *array.shape[2:])
    if array.ndim != len(operator.data_shape) + 1 or shape != operator.data_shape:
        first, *rest = operator.data_shape
        raise UsageError(
            f"measurements of shape {tuple(array.shape)} are not what {type(operator).__name__} maps to: expected "
            f"({first}, slices, {', '.join(map(str, rest))})"
        )
    if array.is_complex() != operator.data_dtype.is_complex:
        raise OperatorError(
            f"{type(operator).__name__} maps to {operator.data_dtype}, got {array.dtype}; LoadImaged keeps the type "
            "of the file with dtype=None"
        )
    return operator
