"""medrecon's own HDF5 layout: measurements of any linear operator, together with that operator.

====================== =========================================================================
``measurements``       (slices, *data_shape)
``operator_config``    the operator's ``config()`` as JSON, a text of fixed length
``operator/…``         the operator's ``tensors()``, one dataset each
``reference``          (slices, H, W), optional
``affine``             (4, 4), voxel (column, row, slice) to mm in RAS+, optional
attributes of the root ``medrecon_version``; ``modality`` ("MR", "CT", "OT"); ``oriented`` (0 or 1)
====================== =========================================================================
"""

import json

import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.affine import read_affine
from medrecon.io.geometry import Geometry
from medrecon.io.hdf5 import Hdf5File, shown
from medrecon.io.options import ReadOptions
from medrecon.io.scan import Scan, SliceStack
from medrecon.io.source import Source
from medrecon.operators.base import LinearOperator

_TENSORS = "operator/"
_MODALITIES = ("MR", "CT", "OT")
# What a constructor may raise when it is fed values that were never its own.
_MISBUILT = (
    ValueError, TypeError, LookupError, RuntimeError, AttributeError, ArithmeticError, MemoryError,
    NotImplementedError,
)  # fmt: skip


class NativeReader:
    """Reader of what :func:`medrecon.io.write_native` writes."""

    name = "medrecon"

    def recognises(self, source: Source) -> bool:
        """Whether there are ``measurements`` and an ``operator_config``."""
        return source.hdf5 is not None and {"measurements", "operator_config"} <= (
            source.hdf5.datasets.keys() | source.hdf5.refused.keys()
        )

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Rebuild the operator and describe the scan; slices are read when they are asked for."""
        hdf5 = source.hdf5
        if hdf5 is None:
            raise InputError(f"{source.path} is not an HDF5 file, expected one of medrecon's")
        if options.key is not None and options.key.strip("/") != "measurements":
            raise InputError(f"{source.path} keeps its data in 'measurements', not in '{shown(options.key)}' (--key)")
        notes = ["--axes was ignored: the file defines its axes"] if options.axes is not None else []
        operator = _operator(hdf5)
        measurements = _measurements(hdf5, operator)
        reference = _reference(hdf5, len(measurements))
        attributes = hdf5.attributes.get("", {})
        modality = attributes.get("modality", "OT")
        if modality not in _MODALITIES:
            raise InputError(f"{hdf5.path}: the attribute 'modality' is not one of {', '.join(_MODALITIES)}")
        shape = reference.shape if reference is not None else operator.image_shape[-2:]
        rows, columns = (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0])
        return Scan(
            source=source.path,
            format=self.name,
            measurements=measurements,
            acquisition=operator,
            geometry=_geometry(hdf5, (len(measurements), rows, columns), notes),
            modality=str(modality),
            reference=reference,
            notes=tuple(notes),
        )


def _operator(hdf5: Hdf5File) -> LinearOperator:
    from medrecon.operators.registry import operator_from_config

    try:
        config = json.loads(hdf5.read_text("operator_config"))
    except (json.JSONDecodeError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{hdf5.path}: 'operator_config' is not a JSON object; write the file anew with write_native")
    names = [name for name in hdf5.datasets if name.startswith(_TENSORS)]
    tensors = {name.removeprefix(_TENSORS): _tensor(hdf5, name) for name in names}
    try:
        operator = operator_from_config(config, tensors)
    except _MISBUILT as error:
        kind = shown(str(config.get("operator", "?")))
        reason = shown(str(error).partition("\n")[0])
        raise InputError(
            f"{hdf5.path}: the operator '{kind}' cannot be built from the file ({type(error).__name__}: {reason}); "
            "is the package that provides it installed, in the version that wrote the file?"
        ) from error
    if operator.batch_size != 1:
        raise InputError(
            f"{hdf5.path}: the operator serves a batch of {operator.batch_size}, expected one for all slices"
        )
    return operator


def _tensor(hdf5: Hdf5File, name: str, selection: tuple[int, ...] = ()) -> Tensor:
    array = hdf5.read(name, selection)
    if array.dtype.kind not in "biufc":
        raise InputError(f"{hdf5.path}: '{shown(name)}' holds {array.dtype}, expected numbers")
    return torch.from_numpy(array)


def _measurements(hdf5: Hdf5File, operator: LinearOperator) -> SliceStack:
    info = hdf5.info("measurements")
    dtype = operator.data_dtype
    kind = "-" if info.dtype is None else info.dtype.kind
    if info.refused is not None:
        raise InputError(f"{hdf5.path}: 'measurements' {info.refused}")
    if not info.shape or info.shape[0] == 0 or info.shape[1:] != operator.data_shape:
        raise InputError(
            f"{hdf5.path}: 'measurements' has shape {info.shape}, but its operator maps to {operator.data_shape}: "
            f"expected (slices, {', '.join(map(str, operator.data_shape))})"
        )
    if kind not in "biufc" or (kind == "c") != dtype.is_complex:
        raise InputError(f"{hdf5.path}: 'measurements' has type {info.dtype}, but the file's operator maps to {dtype}")

    def read(index: int) -> Tensor:
        return _tensor(hdf5, "measurements", (index,)).to(dtype)

    return SliceStack(info.shape[0], tuple(info.shape[1:]), read)


def _reference(hdf5: Hdf5File, slices: int) -> SliceStack | None:
    info = hdf5.datasets.get("reference")
    if info is None:
        return None
    if len(info.shape) != 3 or info.shape[0] != slices or info.dtype is None or info.dtype.kind not in "biuf":
        raise InputError(
            f"{hdf5.path}: 'reference' has shape {info.shape} and type {info.dtype}, expected real ({slices}, H, W)"
        )
    return SliceStack(slices, info.shape[1:], lambda index: _tensor(hdf5, "reference", (index,)).to(torch.float32))


def _geometry(hdf5: Hdf5File, shape: tuple[int, int, int], notes: list[str]) -> Geometry:
    geometry = read_affine(hdf5)
    if geometry is None:
        notes.append("no 'affine' in the file: spacing of 1 mm and axial directions assumed")
        return Geometry.from_spacing((1.0, 1.0, 1.0), shape)
    return geometry
