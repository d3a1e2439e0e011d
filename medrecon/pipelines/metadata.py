"""What travels with an array through a MONAI pipeline: scans as metadata.

Metadata that MONAI can collate, cache and pickle are texts, numbers and arrays, so the operator of a sinogram
travels as its ``config()`` in JSON and its tensors as arrays.
"""

import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.io.geometry import Geometry
from medrecon.io.scan import CartesianAcquisition, Scan
from medrecon.io.writers.sidecar import is_personal
from medrecon.operators.base import LinearOperator
from medrecon.reconstructors.volume import slices_geometry

Meta = Mapping[Hashable, Any]
HEADER = "header_"
_MEASURED = ("sampling_mask", "recon_matrix", "coil_maps", "calibration", "operator", "operator_tensors")


def scan_meta(scan: Scan, slices: range) -> dict[str, Any]:
    """Return the metadata of some slices of a scan, all but ``spatial_shape``.

    Returns
    -------
    dict
        ``affine`` and ``original_affine`` (4, 4) float64 of the *image* that will be reconstructed, as MONAI counts
        its axes, (column, row, slice) to RAS mm; ``space``, ``original_channel_dim``, ``filename_or_obj``;
        ``modality``, ``format``, ``oriented`` (False: spacing is true, position and directions are assumed),
        ``notes``, ``slices`` (start, stop, step) and each header field under ``header_…``. Where known:
        ``mu_water``; of k-space ``recon_matrix`` (rows, columns), ``sampling_mask`` uint8 (W,), (H, W) or, if it
        changes, (slices, H, W), ``coil_maps`` and ``calibration``; otherwise ``operator`` and ``operator_tensors``.
    """
    geometry = slices_geometry(scan.geometry, slices)
    meta: dict[str, Any] = {
        "affine": geometry.affine.copy(),
        "original_affine": geometry.affine.copy(),
        "space": "RAS",
        "original_channel_dim": 0,
        "filename_or_obj": str(scan.source),
        "modality": scan.modality,
        "format": scan.format,
        "oriented": bool(geometry.oriented),
        "notes": "\n".join(scan.notes),
        "slices": np.array([slices.start, slices.stop, slices.step]),
    }
    meta |= {f"{HEADER}{name}": plain(value) for name, value in scan.header.items() if not is_personal(name)}
    if scan.mu_water is not None:
        meta["mu_water"] = float(scan.mu_water)
    if isinstance(scan.acquisition, CartesianAcquisition):
        return meta | _cartesian_meta(scan.acquisition, slices, len(scan.measurements))
    return meta | operator_meta(scan.acquisition)


def operator_meta(operator: LinearOperator) -> dict[str, Any]:
    """Return an operator as metadata: its ``config()`` in JSON and its tensors as arrays."""
    tensors = {name: value.detach().cpu().numpy() for name, value in operator.tensors().items()}
    return {"operator": json.dumps(operator.config()), "operator_tensors": tensors}


def geometry_of(meta: Meta, shape: tuple[int, int, int]) -> Geometry:
    """Return the geometry of an image (slices, rows, columns): the affine, or spacing 1 mm where there is none."""
    if meta.get("affine") is None:
        return Geometry.from_spacing((1.0, 1.0, 1.0), shape)
    affine = as_array(meta["affine"]).astype(np.float64)
    return Geometry(affine, bool(plain(meta.get("oriented", not np.allclose(affine, np.eye(4))))))


def header_of(meta: Meta) -> dict[str, Any]:
    """Return the acquisition parameters among the metadata."""
    names = [name for name in meta if isinstance(name, str) and name.startswith(HEADER)]
    return {name.removeprefix(HEADER): plain(meta[name]) for name in names}


def without_measurements(meta: Meta) -> dict[Hashable, Any]:
    """Return the metadata without what describes measurements only."""
    return {name: value for name, value in meta.items() if name not in _MEASURED}


def as_array(value: Any) -> NDArray[Any]:  # noqa: ANN401 (collation turns metadata into tensors, lists of tensors, …)
    """Return metadata as an array."""
    if isinstance(value, Tensor):
        return np.asarray(value.detach().cpu().numpy())
    return np.asarray([as_array(item) for item in value] if isinstance(value, list | tuple) else value)


def plain(value: Any) -> Any:  # noqa: ANN401 (one of MONAI's scalars in, a scalar out)
    """Return a scalar, whether or not it became an array or a tensor on the way."""
    return value.item() if isinstance(value, np.ndarray | np.generic | Tensor) else value


def _cartesian_meta(acquisition: CartesianAcquisition, slices: range, count: int) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    if acquisition.matrix is not None:
        meta["recon_matrix"] = np.array(acquisition.matrix)
    if acquisition.mask is not None:
        meta["sampling_mask"] = _small_mask(acquisition.mask, list(slices))
    if acquisition.maps is not None:
        maps = acquisition.maps
        meta["coil_maps"] = (maps[list(slices)] if maps.shape[0] == count > 1 else maps).cpu().numpy()
    if acquisition.calibration is not None:
        stack = acquisition.calibration
        chosen = list(slices) if len(stack) == count else [0]
        meta["calibration"] = torch.stack([stack[index] for index in chosen]).cpu().numpy()
    return meta


def _small_mask(mask: Tensor, slices: list[int]) -> NDArray[np.uint8]:
    full = mask.reshape(*[1] * (3 - mask.ndim), *mask.shape)
    full = full[slices] if full.shape[0] > 1 else full
    for axis in (0, 1):
        first = full.narrow(axis, 0, 1)
        if bool((full == first).all()) and (axis == 0 or full.shape[0] == 1):
            full = first
    shape = full.shape
    small = full[0, 0] if shape[:2] == (1, 1) else full[0] if shape[0] == 1 else full
    return np.asarray((small > 0).to(torch.uint8).cpu().numpy())
