"""From a raw sinogram and its geometry to a scan of line integrals: the one place where CT data are prepared."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.errors import InputError, OperatorError
from medrecon.io.geometry import Geometry
from medrecon.io.options import ReadOptions
from medrecon.io.scan import Scalar, Scan, SliceStack
from medrecon.io.sinogram.evidence import angle_notes, data_notes
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.fan_beam import FanBeam2D
from medrecon.operators.ct.prelog import line_integrals
from medrecon.operators.ct.rings import suppress_rings
from medrecon.operators.ct.rotation_center import find_rotation_center

Field = Callable[[int], Tensor | None]

_logger = logging.getLogger("medrecon")


def no_field(_: int) -> Tensor | None:
    """Return None: the file has no such field."""
    return None


@dataclass(frozen=True)
class RawSinogram:
    """What a file holds.

    Parameters
    ----------
    rows
        One sinogram (views, bins) a slice, as stored.
    schema
        What the values are and where they were measured.
    white, dark
        Fields of a slice, (bins,) or (fields, bins), or None.
    center_known
        Whether the file states the centre of rotation; where it does not, it is estimated.
    slice_spacing
        mm.
    """

    rows: SliceStack
    schema: SinogramSchema
    white: Field = no_field
    dark: Field = no_field
    center_known: bool = True
    slice_spacing: float = 1.0


def sinogram_scan(
    path: Path,
    name: str,
    raw: RawSinogram,
    options: ReadOptions,
    *,
    reference: SliceStack | None = None,
    header: dict[str, Scalar] | None = None,
    notes: tuple[str, ...] = (),
) -> Scan:
    """Check a raw sinogram against its geometry and describe it as a scan.

    Slices are read, corrected, brought to line integrals and (with ``suppress_rings``) freed of stripes
    when they are asked for. One slice from the middle is read at once: it shows what is wrong, and the
    centre of rotation is estimated from it where that is asked for or not known.
    """
    operator = raw.schema.operator
    _check_shape(path, raw.rows.shape, operator)
    prepared = _Preparation(path, raw, options)
    middle = len(raw.rows) // 2
    sample, repairs = prepared(middle)
    found = [*notes, *angle_notes(operator), *(f"slice {middle}: {note}" for note in repairs)]
    operator, said = _centred(path, raw, sample, options)
    found += said
    operator, said = _resized(path, operator, options)
    found += said
    found += data_notes(sample)
    if options.suppress_rings:
        found.append("stripes of single detector bins are suppressed (--suppress-rings)")
    mu_water = raw.schema.mu_water if options.mu_water is None else options.mu_water
    measurements = SliceStack(len(raw.rows), operator.data_shape, lambda index: prepared.slice(index))
    return Scan(
        source=path,
        format=name,
        measurements=measurements,
        acquisition=operator,
        geometry=_geometry(path, raw, operator, moved=operator.image_shape != raw.schema.operator.image_shape),
        modality="CT",
        reference=reference,
        header=header or {},
        notes=tuple(found),
        mu_water=mu_water,
    )


class _Preparation:
    """Turns slices of raw values into line integrals."""

    def __init__(self, path: Path, raw: RawSinogram, options: ReadOptions) -> None:
        self._path = path
        self._raw = raw
        self._options = options

    def __call__(self, index: int) -> tuple[Tensor, list[str]]:
        """Return the line integrals (views, bins) of a slice, and what had to be repaired."""
        raw, schema = self._raw, self._raw.schema
        values = raw.rows[index].double() * schema.scale
        if schema.quantity == "line_integral":
            return values.float(), []
        white, i0 = raw.white(index), schema.i0
        if white is None and i0 is None:
            i0 = 1.0 if schema.quantity == "transmission" else None
        if white is None and i0 is None:
            raise InputError(
                f"{self._path}: counts need the intensity without an object: a white field, or data.i0 in the geometry"
            )
        try:
            y, report = line_integrals(
                values,
                white=white,
                dark=raw.dark(index),
                i0=None if white is not None else i0,
                nonfinite=self._options.nonfinite,
            )
        except InputError as error:
            raise InputError(f"{self._path}: slice {index}: {error}") from error
        return y, report.notes()

    def slice(self, index: int) -> Tensor:
        """Return the measurements of a slice, (1, views, bins)."""
        y, repairs = self(index)
        for note in repairs:
            _logger.info("slice %d: %s", index, note)
        return (suppress_rings(y) if self._options.suppress_rings else y)[None]


def _check_shape(path: Path, found: tuple[int, ...], operator: XRayTransform) -> None:
    views, bins = operator.data_shape[1:]
    if found == (views, bins):
        return
    if found == (bins, views):
        raise InputError(
            f"{path}: the sinogram is {found[0]} x {found[1]}, but its geometry has {views} views and {bins} bins: it "
            "is transposed. State its axes as det, view, or transpose it"
        )
    raise InputError(
        f"{path}: the sinogram has {found[0]} views of {found[1]} bins, but its geometry states {views} angles and "
        f"{bins} detector bins; they must agree"
    )


def _centred(path: Path, raw: RawSinogram, sample: Tensor, options: ReadOptions) -> tuple[XRayTransform, list[str]]:
    """Return the operator about the right axis."""
    operator, center = raw.schema.operator, options.center
    if center is None and raw.center_known:
        return operator, []
    bins = operator.detector_count
    if center is None or center == "auto":
        if isinstance(operator, FanBeam2D):
            raise InputError(
                f"{path}: the centre of rotation of a fan beam is not estimated; give its detector column (--center)"
            )
        clean = torch.nan_to_num(sample)
        try:
            column = find_rotation_center(clean, operator.angles[0])
        except InputError as error:
            evidence = "; ".join(["", *angle_notes(operator)])
            raise InputError(f"{path}: {error}{evidence}") from error
        said = f"centre of rotation found at detector column {column:.2f} of {bins} (--center {column:.2f} sets it)"
    else:
        column, said = float(center), ""
        if not 0 <= column <= bins - 1:
            raise InputError(f"--center {column:g} does not lie on the detector of {bins} bins (0 to {bins - 1})")
    magnification = operator.source_detector / operator.source_origin if isinstance(operator, FanBeam2D) else 1.0
    shift = ((column - (bins - 1) / 2) * operator.detector_pitch + operator.detector_offset) / magnification
    return _rebuilt(operator, center_of_rotation=shift), [said] if said else []


def _resized(path: Path, operator: XRayTransform, options: ReadOptions) -> tuple[XRayTransform, list[str]]:
    """Return the operator on the grid that the user asks for, by default of the same extent."""
    size = options.image_size
    if size is None:
        return operator, []
    pixel = max(operator.image_shape[1:]) * operator.pixel_size / size
    try:
        return _rebuilt(operator, image_shape=[1, size, size], pixel_size=pixel), []
    except OperatorError as error:
        raise InputError(f"{path}: {error}") from error


def _rebuilt(operator: XRayTransform, **changes: object) -> XRayTransform:
    return type(operator).from_config({**operator.config(), **changes}, operator.tensors())


def _geometry(path: Path, raw: RawSinogram, operator: XRayTransform, *, moved: bool) -> Geometry:
    pixel, (rows, columns) = operator.pixel_size, operator.image_shape[1:]
    if raw.schema.affine is None or moved:
        return Geometry.from_spacing((pixel, pixel, raw.slice_spacing), (len(raw.rows), rows, columns))
    try:
        geometry = Geometry(np.array(raw.schema.affine).reshape(4, 4))
    except ValueError as error:
        raise InputError(f"{path}: image.affine: {error}") from error
    x, y, _ = geometry.spacing
    if not (math.isclose(x, pixel, rel_tol=1e-3) and math.isclose(y, pixel, rel_tol=1e-3)):
        raise InputError(f"{path}: image.affine has pixels of {x:.4g} x {y:.4g} mm, but image.pixel is {pixel:.4g}")
    return replace(geometry)
