"""What a trained model was trained for, and whether measurements lie within."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from torch import Tensor

from medrecon.errors import InputError
from medrecon.io.scan import CartesianAcquisition
from medrecon.models.shipped import SCOPE, checkpoint_folder, shipped_models
from medrecon.operators.base import LinearOperator
from medrecon.operators.block_cs import BlockCompressedSensing
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.scaling import intensity_scale
from medrecon.reconstructors.mri import acceleration, sampling_pattern
from medrecon.reconstructors.noise import kspace_noise, sinogram_noise

Modality = Literal["mri", "ct", "cs"]

_LIMITS: dict[str, tuple[str, ...]] = {
    "mri": ("acceleration", "coils", "matrix", "noise"),
    "ct": ("views", "degrees", "matrix", "noise", "attenuation"),
    "cs": ("ratio", "block_size", "channels", "matrix"),
}
_KINDS: dict[str, tuple[str, str]] = {  # what tells them apart, and how to say that one is another
    "mri": ("pattern", "k-space is sampled in {}"),
    "ct": ("geometry", "the geometry is {}"),
}
_WORDS = {
    "acceleration": "R = {} is",
    "coils": "{} coils are",
    "matrix": "a matrix side of {} is",
    "noise": "noise of {} of the peak is",
    "views": "{} views are",
    "degrees": "an arc of {} degrees is",
    "attenuation": "an attenuation of {} per mm is",
    "ratio": "a ratio of {} is",
    "block_size": "a block size of {} is",
    "channels": "{} channels are",
}


class Limits(NamedTuple):
    """Smallest and largest value."""

    low: float
    high: float


@dataclass(frozen=True)
class Scope:
    """The measurements that a model was trained for, the content of ``scope.json``.

    Parameters
    ----------
    modality
        "mri" (Cartesian k-space), "ct" (sinograms) or "cs" (block compressed sensing).
    limits
        By name. For "mri": ``acceleration``, ``coils``, ``matrix`` (rows and columns of k-space) and ``noise``, the
        standard deviation as a fraction of the brightest pixel. For "ct": ``views``, ``degrees``, ``matrix``,
        ``noise``, as a fraction of the largest line integral, and ``attenuation``, the energy median of the image in
        1/mm, for models that know tissue by its numbers. For "cs": ``ratio``, ``block_size``, ``channels``,
        ``matrix``. What is left out is not checked.
    kinds
        By name, all by default, with limits that are narrower or wider there. For "mri" the ``pattern``: "lines" and
        "points". For "ct" the ``geometry``: names of operators such as "ct-parallel", which includes
        "ct-parallel-astra".
    """

    modality: Modality
    limits: Mapping[str, Limits] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, Limits]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: object, source: str) -> Self:
        """Return the scope that a file describes: a range is [low, high], a single number its upper end.

        Kinds are a list of names, or a mapping from them to limits of their own.

        Parameters
        ----------
        content
            As JSON or YAML was read.
        source
            Name of the file, for messages.

        Examples
        --------
        >>> Scope.from_dict({"modality": "mri", "acceleration": [2, 10], "noise": 0.05}, "scope.json").limits["noise"]
        Limits(low=0.0, high=0.05)
        """
        if not isinstance(content, dict) or content.get("modality") not in get_args(Modality):
            raise InputError(f"{source}: expected 'modality', one of {', '.join(get_args(Modality))}, and its limits")
        modality: Modality = content["modality"]
        described = {name: value for name, value in content.items() if name != "modality"}
        if modality not in _KINDS:
            return cls(modality, _limits(described, source, modality))
        key = _KINDS[modality][0]
        kinds = _kinds(described.pop(key, []), f"{source}: {key}", modality)
        return cls(modality, _limits(described, source, modality, key), kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` reads."""
        described: dict[str, Any] = {"modality": self.modality, **_lists(self.limits)}
        if self.kinds:
            own = {name: _lists(limits) for name, limits in self.kinds.items()}
            described[_KINDS[self.modality][0]] = own if any(own.values()) else list(own)
        return described

    def refusal(self, operator: LinearOperator, measurements: Tensor) -> str | None:
        """Return why a slice lies outside, in words; None where it lies within.

        Parameters
        ----------
        operator
            Of the slice. For MRI maps are not needed.
        measurements
            (1, *operator.data_shape); without maps, coils may stand first.
        """
        if modality_of(operator) != self.modality:
            return f"it is for {self.modality}, not for {type(operator).__name__}"
        if len(operator.image_shape) != 3:
            return f"images of shape {operator.image_shape} are not two-dimensional"
        limited = dict(self.limits)
        if self.kinds:
            kind = _kind(operator)
            known = next((name for name in self.kinds if kind == name or kind.startswith(f"{name}-")), None)
            if known is None:
                found = _KINDS[self.modality][1].format(kind)
                return f"{found}, not the {' or '.join(self.kinds)} that it was trained for"
            limited |= self.kinds[known]
        measures = _measures(operator, measurements)
        for name, limits in limited.items():
            for value in measures[name]():
                # limits are round numbers, what is measured is not: an arc of 180.00001 degrees
                if not limits.low * (1 - 1e-3) <= value <= limits.high * (1 + 1e-3):
                    found = _WORDS[name].format(_number(name, value))
                    return f"{found} beyond the {_span(name, limits)} that it was trained for"
        return None


def modality_of(acquisition: CartesianAcquisition | LinearOperator) -> Modality | None:
    """Return the modality of measurements, None where models have no name for it."""
    kinds: dict[type, Modality] = {
        CartesianAcquisition: "mri",
        CartesianMRI: "mri",
        XRayTransform: "ct",
        BlockCompressedSensing: "cs",
    }
    return next((modality for kind, modality in kinds.items() if isinstance(acquisition, kind)), None)


def read_scope(checkpoint: str | Path) -> Scope | None:
    """Return the scope of a model, None where nothing is said."""
    path = checkpoint_folder(checkpoint) / SCOPE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return Scope.from_dict(content, str(path))


def shipped_scopes(modality: Modality | None) -> dict[str, Scope]:
    """Return the scopes of the models that come with medrecon for a modality, by the name of the model."""
    scopes = {name: read_scope(folder) for name, folder in shipped_models().items()}
    return {name: scope for name, scope in scopes.items() if scope is not None and scope.modality == modality}


def _kind(operator: LinearOperator) -> str:
    """Return the pattern or the geometry."""
    if isinstance(operator, CartesianMRI):
        return sampling_pattern(operator.mask[0])
    return operator.registered_name or type(operator).__name__


def _measures(operator: LinearOperator, measurements: Tensor) -> dict[str, Callable[[], tuple[float, ...]]]:
    """Return how to measure everything that can be limited: some takes projections, and may not be asked for."""
    matrix = tuple(float(side) for side in operator.image_shape[-2:])
    if isinstance(operator, CartesianMRI):
        kspace = measurements.reshape(-1, *operator.image_shape[-2:])
        mask = operator.mask[0].to(kspace.device)
        return {
            "acceleration": lambda: (acceleration(mask),),
            "coils": lambda: (len(kspace),),
            "matrix": lambda: matrix,
            "noise": lambda: (kspace_noise(kspace, mask),),
        }
    if isinstance(operator, XRayTransform):
        return {
            "views": lambda: (operator.data_shape[1],),
            "degrees": lambda: (360 * operator.turns,),
            "matrix": lambda: matrix,
            "noise": lambda: (sinogram_noise(measurements),),
            "attenuation": lambda: (float(intensity_scale(operator, measurements)[0]),),
        }
    if isinstance(operator, BlockCompressedSensing):
        return {
            "ratio": lambda: (operator.ratio,),
            "block_size": lambda: (operator.block_size,),
            "channels": lambda: (operator.image_shape[0],),
            "matrix": lambda: matrix,
        }
    raise InputError(f"{type(operator).__name__}: nothing is known to limit")


def _limits(content: Mapping[str, object], source: str, modality: Modality, *others: str) -> dict[str, Limits]:
    known = _LIMITS[modality]
    unknown = sorted(str(key) for key in content.keys() - set(known))
    if unknown:
        names = ", ".join((*known, *others))
        raise InputError(f"{source}: unknown key {unknown[0]!r} for {modality}; known: {names}")
    return {key: _range(content[key], f"{source}: {key}") for key in known if key in content}


def _kinds(value: object, what: str, modality: Modality) -> dict[str, dict[str, Limits]]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    if not isinstance(value, dict) or not all(isinstance(own, dict) for own in value.values()):
        raise InputError(f"{what}: expected a list of names, or limits by name, got {value!r}")
    return {str(name): _limits(own, f"{what}: {name}", modality) for name, own in value.items()}


def _range(value: object, what: str) -> Limits:
    ends = value if isinstance(value, list) else [0.0, value]
    numbers = [float(end) for end in ends if isinstance(end, int | float) and math.isfinite(end)]
    if len(ends) != 2 or len(numbers) != 2 or numbers[0] > numbers[1]:
        raise InputError(f"{what}: expected [smallest, largest], or the largest, got {value!r}")
    return Limits(*numbers)


def _lists(limits: Mapping[str, Limits]) -> dict[str, list[float]]:
    return {name: list(values) for name, values in limits.items()}


def _number(name: str, value: float) -> str:
    return f"{100 * value:.3g} %" if name == "noise" else f"{value:.4g}"


def _span(name: str, limits: Limits) -> str:
    if limits.low == limits.high:
        return _number(name, limits.high)
    scale, unit = (100, " %") if name == "noise" else (1, "")
    return f"{scale * limits.low:.4g} to {scale * limits.high:.4g}{unit}"
