"""The geometry of a sinogram as files state it: millimetres, degrees, one key a fact, no unknown keys.

========================= ===========================================================================
``medrecon_ct``           1, the version
``geometry``              ``parallel`` or ``fan``
``detector``              ``count``, ``pitch`` (mm), ``shape`` (``flat`` or ``arc``), ``offset`` (mm, + along +u)
``source_origin``         mm, fan only; ``source_detector`` likewise
``angles``                ``values``, or ``start``, ``span``, ``count``, ``endpoint``, ``centred``
``angle_unit``            ``deg`` or ``rad``, required
``rotation``              ``ccw`` or ``cw``
``center_of_rotation``    mm at the axis
``image``                 ``shape`` (rows, columns), ``pixel`` (mm), ``center`` (x, y in mm), ``affine`` (4 x 4, RAS+)
``data``                  ``quantity`` (``line_integral``, ``transmission``, ``counts``), ``axes`` (of ``slice``,
                          ``view``, ``det``), ``unit`` (required: ``dimensionless``, or ``photons`` for counts),
                          ``scale``, ``i0``
``output``                ``unit`` (``mu`` or ``hu``), ``mu_water`` (1/mm)
========================= ===========================================================================

In HDF5 nested keys are attributes with a dot (``detector.count``) of the dataset ``sinogram``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from medrecon.errors import InputError, OperatorError
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.fan_beam import FanBeam2D
from medrecon.operators.ct.hounsfield import MU_WATER
from medrecon.operators.ct.parallel_beam import ParallelBeam2D
from medrecon.operators.samplers.registry import did_you_mean

VERSION = 1
Quantity = Literal["line_integral", "transmission", "counts"]

_KEYS: dict[str, tuple[str, ...]] = {
    "medrecon_ct": (),
    "geometry": (),
    "detector": ("count", "pitch", "shape", "offset"),
    "source_origin": (),
    "source_detector": (),
    "angles": ("values", "start", "span", "count", "endpoint", "centred"),
    "angle_unit": (),
    "rotation": (),
    "center_of_rotation": (),
    "image": ("shape", "pixel", "center", "affine"),
    "data": ("quantity", "axes", "unit", "scale", "i0"),
    "output": ("unit", "mu_water"),
}
_UNITS = {
    "line_integral": ("dimensionless",),
    "transmission": ("dimensionless",),
    "counts": ("photons", "counts", "dimensionless"),
}


@dataclass(frozen=True)
class SinogramSchema:
    """What a file says about its sinogram; the operator keeps the geometry (mm, radians, counter-clockwise).

    Parameters
    ----------
    operator
        Parallel or fan beam.
    affine
        Voxel (column, row, slice) to mm in RAS+, 16 numbers, where the file states it.
    quantity, axes, scale, i0
        Of the data: y = scale · stored; ``i0`` is the intensity without an object.
    mu_water
        1/mm, where the output is to be in Hounsfield units.
    """

    operator: XRayTransform
    affine: tuple[float, ...] | None = None
    quantity: Quantity = "line_integral"
    axes: tuple[str, ...] = ("slice", "view", "det")
    scale: float = 1.0
    i0: float | None = None
    mu_water: float | None = None

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], where: str, *, angles: Tensor | None = None) -> "SinogramSchema":
        """Read a schema; ``angles`` are those of the file's own array in its ``angle_unit``, if it has one.

        Raises
        ------
        InputError
            Naming the key, what it holds and what was expected.
        """
        card = _Card(where, given)
        if card.get("medrecon_ct", int) != VERSION:
            raise InputError(f"{where}: medrecon_ct is {given.get('medrecon_ct')!r}, expected {VERSION}")
        quantity = card.choice("data.quantity", ("line_integral", "transmission", "counts"))
        card.choice("data.unit", _UNITS[quantity])
        axes = card.words("data.axes", ("slice", "view", "det"))
        if sorted(axes) not in (["det", "view"], ["det", "slice", "view"]):
            raise InputError(f"{where}: data.axes are {list(axes)}, expected view and det, and slice for a stack")
        affine = card.numbers("image.affine", 16) if card.has("image.affine") else None
        unit = card.choice("output.unit", ("mu", "hu")) if card.has("output.unit") else "mu"
        return cls(
            operator=_operator(card, angles),
            affine=affine,
            quantity=quantity,  # type: ignore[arg-type]  # one of the literals
            axes=axes,
            scale=card.get("data.scale", float, 1.0),
            i0=card.get("data.i0", float, 0.0) or None,
            mu_water=card.get("output.mu_water", float, MU_WATER) if unit == "hu" else None,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return the schema as files hold it, but for the angles, which are an array (degrees)."""
        operator = self.operator
        fan = isinstance(operator, FanBeam2D)
        card: dict[str, Any] = {
            "medrecon_ct": VERSION,
            "geometry": "fan" if fan else "parallel",
            "detector": {
                "count": operator.detector_count,
                "pitch": operator.detector_pitch,
                "shape": operator.detector_shape if isinstance(operator, FanBeam2D) else "flat",
                "offset": operator.detector_offset,
            },
            "angle_unit": "deg",
            "rotation": "ccw",
            "center_of_rotation": operator.center_of_rotation,
            "image": {
                "shape": list(operator.image_shape[1:]),
                "pixel": operator.pixel_size,
                "center": list(operator.image_center),
            },
            "data": {
                "quantity": self.quantity,
                "axes": list(self.axes),
                "unit": "photons" if self.quantity == "counts" else "dimensionless",
                "scale": self.scale,
            },
            "output": {"unit": "mu"} if self.mu_water is None else {"unit": "hu", "mu_water": self.mu_water},
        }
        if isinstance(operator, FanBeam2D):
            card |= {"source_origin": operator.source_origin, "source_detector": operator.source_detector}
        if self.i0 is not None:
            card["data"]["i0"] = self.i0
        if self.affine is not None:
            card["image"]["affine"] = list(self.affine)
        return card

    @property
    def degrees(self) -> Tensor:
        """The angles in degrees, (views,) float64."""
        return torch.rad2deg(self.operator.angles[0])


def flattened(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in card.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat


class _Card:
    """Typed access to a mapping, flat or nested, whose keys are all known."""

    def __init__(self, where: str, given: Mapping[str, Any]) -> None:
        self.where = where
        self._values = flattened(given)
        known = [key if not inner else f"{key}.{name}" for key, inner in _KEYS.items() for name in (inner or ("",))]
        for key in self._values:
            if key not in known:
                raise InputError(f"{where}: unknown key {key!r}{did_you_mean(key, dict.fromkeys(known))}")

    def has(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, kind: type, default: float | None = None) -> Any:  # noqa: ANN401 (of the kind asked for)
        """Return a finite number of that kind."""
        value = self._values.get(key, default)
        if value is None:
            raise InputError(f"{self.where}: the key {key!r} is missing")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (kind is int and value != int(value)):
            expected = "a whole number" if kind is int else "a number"
            raise InputError(f"{self.where}: {key} is {value!r}, expected {expected}")
        return kind(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        if value not in (True, False):
            raise InputError(f"{self.where}: {key} is {value!r}, expected true or false")
        return bool(value)

    def choice(self, key: str, known: tuple[str, ...], default: str | None = None) -> str:
        value = self._values.get(key, default)
        if value not in known:
            found = "is missing" if value is None else f"is {value!r}"
            raise InputError(f"{self.where}: {key} {found}, expected {' or '.join(known)}")
        return str(value)

    def words(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._values.get(key, default)
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{self.where}: {key} is {value!r}, expected a list of words")
        return tuple(word.strip() for word in words)

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        value = self._values.get(key)
        if isinstance(value, list | tuple) and value and all(isinstance(row, list | tuple) for row in value):
            value = [item for row in value for item in row]
        good = isinstance(value, list | tuple) and all(
            isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in value
        )
        if not good or not isinstance(value, list | tuple) or len(value) != (count or len(value)) or not value:
            expected = f"{count} numbers" if count else "numbers"
            raise InputError(f"{self.where}: {key} is {str(value)[:80]!r}, expected a list of {expected}")
        return tuple(float(item) for item in value)


def _operator(card: _Card, angles: Tensor | None) -> XRayTransform:
    rows, columns = (int(size) for size in card.numbers("image.shape", 2))
    common = {
        "detector_count": card.get("detector.count", int),
        "detector_pitch": card.get("detector.pitch", float),
        "pixel_size": card.get("image.pixel", float),
        "detector_offset": card.get("detector.offset", float, 0.0),
        "center_of_rotation": card.get("center_of_rotation", float, 0.0),
    }
    x, y = card.numbers("image.center", 2) if card.has("image.center") else (0.0, 0.0)
    radians = _radians(card, angles)
    shape = card.choice("detector.shape", ("flat", "arc"), "flat")
    try:
        if card.choice("geometry", ("parallel", "fan")) == "parallel":
            for key in ("source_origin", "source_detector"):
                if card.has(key):
                    raise InputError(f"{card.where}: {key} is for geometry fan, but geometry is parallel")
            return ParallelBeam2D((rows, columns), radians, **common, image_center=(x, y))
        return FanBeam2D(
            (rows, columns),
            radians,
            source_origin=card.get("source_origin", float),
            source_detector=card.get("source_detector", float),
            detector_shape=shape,  # type: ignore[arg-type]  # one of the literals
            **common,
            image_center=(x, y),
        )
    except OperatorError as error:
        raise InputError(f"{card.where}: {error}") from error


def _radians(card: _Card, given: Tensor | None) -> Tensor:
    unit = card.choice("angle_unit", ("deg", "rad"))
    if given is not None or card.has("angles.values"):
        angles = given.double() if given is not None else torch.tensor(card.numbers("angles.values")).double()
    else:
        count = card.get("angles.count", int)
        start, span = card.get("angles.start", float, 0.0), card.get("angles.span", float)
        closed = card.flag("angles.endpoint", default=False)
        if not 0 < count <= 1_000_000:
            raise InputError(f"{card.where}: angles.count is {count}, expected 1 to 1000000")
        steps = torch.arange(count, dtype=torch.float64) + (0.5 if card.flag("angles.centred", default=False) else 0.0)
        angles = start + span * steps / max(count - closed, 1)
    radians = torch.deg2rad(angles) if unit == "deg" else angles
    return -radians if card.choice("rotation", ("ccw", "cw"), "ccw") == "cw" else radians
