"""Raw data out: measurements with their operator (our layout), k-space in the layout of fastMRI.

Texts are of fixed length: variable-length ones live in HDF5's global heap, where one damaged byte can
hang a reader for ever. Storage is chunked by slice, which is how everybody reads it.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrecon import __version__
from medrecon.errors import UsageError
from medrecon.io.affine import write_affine
from medrecon.io.geometry import Geometry
from medrecon.io.scan import Scalar, SliceStack
from medrecon.io.writers.atomic import atomic_path
from medrecon.io.writers.stacks import as_stack, checked_reference, fill
from medrecon.operators.base import LinearOperator

if TYPE_CHECKING:
    pass

_MODALITIES = ("MR", "CT", "OT")
_NAME = re.compile(r"[A-Za-z0-9_]{1,32}")


def write_native(
    path: Path | str,
    measurements: Tensor | SliceStack,
    operator: LinearOperator,
    *,
    reference: Tensor | SliceStack | None = None,
    geometry: Geometry | None = None,
    modality: str = "OT",
    overwrite: bool = False,
) -> None:
    """Write measurements of any operator, with all that is needed to reconstruct them.

    The layout is that of :mod:`medrecon.io.readers.native`. The file appears complete or not at all.

    Parameters
    ----------
    path
        File to write.
    measurements
        (slices, *operator.data_shape).
    operator
        One operator for all slices (``batch_size`` 1) that supports ``config()``.
    reference
        Ground truth (slices, H, W), real.
    geometry
        Of the reconstructed image.
    modality
        "MR", "CT" or "OT".
    overwrite
        Replace an existing file.
    """
    import h5py

    stack = as_stack(measurements)
    if stack.shape != operator.data_shape or not len(stack):
        raise UsageError(
            f"write_native: measurements have shape {(len(stack), *stack.shape)}, "
            f"expected (slices, {', '.join(map(str, operator.data_shape))})"
        )
    if operator.batch_size != 1:
        raise UsageError(
            f"write_native: the operator serves a batch of {operator.batch_size}; one file holds slices of one operator"
        )
    if modality not in _MODALITIES:
        raise UsageError(f"write_native: modality {modality!r}, expected one of {', '.join(_MODALITIES)}")
    images = checked_reference(reference, len(stack), "write_native")
    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["medrecon_version"] = np.bytes_(__version__.encode())
        file.attrs["modality"] = np.bytes_(modality.encode())
        file["operator_config"] = np.bytes_(json.dumps(operator.config()).encode())
        for name, tensor in operator.tensors().items():
            file[f"operator/{name}"] = tensor.detach().cpu().resolve_conj().numpy()
        fill(file, "measurements", stack, operator.data_dtype)
        if images is not None:
            fill(file, "reference", images, torch.float32)
        if geometry is not None:
            write_affine(file, geometry)


def write_fastmri(
    path: Path | str,
    kspace: Tensor | SliceStack,
    *,
    mask: Tensor | None = None,
    reference: Tensor | SliceStack | None = None,
    matrix: tuple[int, int] | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    geometry: Geometry | None = None,
    acquisition: str = "UNKNOWN",
    acceleration: int | None = None,
    padding: tuple[int, int] = (0, 0),
    header: Mapping[str, Scalar] | None = None,
    overwrite: bool = False,
) -> None:
    """Write k-space in the layout of the fastMRI data set.

    One coil gives the single-coil layout (no coil axis, the reference as ``reconstruction_esc``),
    several give the multi-coil one (``reconstruction_rss``). The file appears complete or not at all.

    Parameters
    ----------
    path
        File to write.
    kspace
        (slices, coils, H, W) complex; H is the read-out, W the phase encoding.
    mask
        Acquired columns (W,), as test files have them; None for fully sampled data.
    reference
        Target images (slices, h, w).
    matrix
        Rows and columns of the reconstruction; by default those of the reference, else H and W.
    spacing
        Distance in mm of columns, rows and slices of the reconstruction.
    geometry
        Of the reconstruction, instead of ``spacing``. Position and orientation go into an additional
        dataset ``affine``, which the layout lacks and other programs ignore.
    acquisition
        E.g. CORPD_FBK, CORPDFS_FBK, AXT1, AXT2, AXFLAIR: letters, digits, underscores.
    acceleration
        Acceleration of the mask, for the evaluation of test files.
    padding
        Columns on the left and right of k-space that are zero because they were not acquired.
    header
        ``field_strength`` (T), ``repetition_time``, ``echo_time``, ``inversion_time``, ``echo_spacing``
        (ms) and ``flip_angle`` (degrees) go into the XML header; other entries are left out.
    overwrite
        Replace an existing file.
    """
    import h5py

    stack = as_stack(kspace)
    if len(stack.shape) != 3 or not len(stack):
        raise UsageError(
            f"write_fastmri: k-space has shape {(len(stack), *stack.shape)}, expected (slices, coils, H, W)"
        )
    coils, rows, columns = stack.shape
    images = checked_reference(reference, len(stack), "write_fastmri")
    size = matrix or ((images.shape[0], images.shape[1]) if images is not None else (rows, columns))
    if mask is not None and tuple(mask.shape) != (columns,):
        raise UsageError(f"write_fastmri: the mask has shape {tuple(mask.shape)}, expected ({columns},)")
    if min(padding) < 0 or sum(padding) >= columns:
        raise UsageError(f"write_fastmri: padding {padding} does not fit {columns} columns")
    if not _NAME.fullmatch(acquisition):
        raise UsageError(f"write_fastmri: acquisition {acquisition!r}, expected letters, digits and underscores")
    spacing = spacing if geometry is None else geometry.spacing
    xml = _header((rows, columns), size, spacing, padding, header or {})
    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file["ismrmrd_header"] = np.bytes_(xml.encode())
        fill(file, "kspace", stack, torch.complex64, drop_axis=coils == 1)
        file.attrs["acquisition"] = np.bytes_(acquisition.encode())
        if geometry is not None:
            write_affine(file, geometry)
        if acceleration is not None:
            file.attrs["acceleration"] = acceleration
        if mask is not None:
            file["mask"] = mask.detach().cpu().numpy() > 0
        if images is not None:
            peak, energy = fill(
                file, "reconstruction_esc" if coils == 1 else "reconstruction_rss", images, torch.float32
            )
            file.attrs["max"], file.attrs["norm"] = peak, energy**0.5


def _header(
    grid: tuple[int, int],
    size: tuple[int, int],
    spacing: tuple[float, float, float],
    padding: tuple[int, int],
    header: Mapping[str, Scalar],
) -> str:
    """ISMRMRD header of 2-D Cartesian slices: x is the read-out (rows), y the phase encoding (columns)."""
    width, height, depth = spacing
    rows, columns = grid
    left, right = padding
    field = _element(header, "field_strength", "systemFieldStrength_T")
    # Hydrogen's frequency is required by the schema; 42.577 MHz/T is its gyromagnetic ratio over 2 pi.
    tesla = header.get("field_strength", 0.0)
    hertz = round(float(tesla) * 42.577478518e6) if isinstance(tesla, int | float) else 0
    sequence = "".join(
        _element(header, key, tag)
        for key, tag in (
            ("repetition_time", "TR"),
            ("echo_time", "TE"),
            ("inversion_time", "TI"),
            ("flip_angle", "flipAngle_deg"),
            ("echo_spacing", "echo_spacing"),
        )
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        + (f"<acquisitionSystemInformation>{field}</acquisitionSystemInformation>" if field else "")
        + f"<experimentalConditions><H1resonanceFrequency_Hz>{hertz}</H1resonanceFrequency_Hz></experimentalConditions>"
        + "<encoding>"
        + _space("encodedSpace", (rows, columns), (rows * height, columns * width, depth))
        + _space("reconSpace", size, (size[0] * height, size[1] * width, depth))
        + "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
        + f"<maximum>{columns - left - right - 1}</maximum><center>{columns // 2 - left}</center>"
        + "</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>"
        + (f"<sequenceParameters>{sequence}</sequenceParameters>" if sequence else "")
        + "</ismrmrdHeader>"
    )


def _space(name: str, matrix: tuple[int, int], fov: tuple[float, float, float]) -> str:
    x, y, z = fov
    return (
        f"<{name}><matrixSize><x>{matrix[0]}</x><y>{matrix[1]}</y><z>1</z></matrixSize>"
        f"<fieldOfView_mm><x>{x:.9g}</x><y>{y:.9g}</y><z>{z:.9g}</z></fieldOfView_mm></{name}>"
    )


def _element(header: Mapping[str, Scalar], key: str, tag: str) -> str:
    value = header.get(key)
    return f"<{tag}>{value:.9g}</{tag}>" if isinstance(value, int | float) and math.isfinite(value) else ""
