"""Samplers by name, for recipes and the command line."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches

from medrecon.errors import UsageError
from medrecon.operators.samplers.base import MaskSampler
from medrecon.operators.samplers.fastmri_patterns import (
    EquispacedFractionLines,
    EquispacedLines,
    MagicFractionLines,
    MagicLines,
    RandomLines,
)
from medrecon.operators.samplers.fixed import FixedMask
from medrecon.operators.samplers.poisson_disc import PoissonDisc
from medrecon.operators.samplers.radial import RadialSpokes
from medrecon.operators.samplers.variable_density import VariableDensityLines, VariableDensityPoints

_SAMPLERS: dict[str, type[MaskSampler]] = {
    "equispaced": EquispacedLines,
    "equispaced-fraction": EquispacedFractionLines,
    "from-file": FixedMask,
    "magic": MagicLines,
    "magic-fraction": MagicFractionLines,
    "poisson-disc": PoissonDisc,
    "radial": RadialSpokes,
    "random": RandomLines,
    "variable-density-lines": VariableDensityLines,
    "variable-density-points": VariableDensityPoints,
}


def available_samplers() -> dict[str, tuple[str, ...]]:
    """Return the names of all mask samplers with the parameters of each."""
    return {name: tuple(field.name for field in fields(cls)) for name, cls in _SAMPLERS.items()}  # type: ignore[arg-type]


def make_sampler(name: str, parameters: Mapping[str, object]) -> MaskSampler:
    """Build the sampler of that name; a key it does not know is an error.

    Parameters
    ----------
    name
        One of :func:`available_samplers`. ``random``, ``equispaced``, ``equispaced-fraction``,
        ``magic`` and ``magic-fraction`` are fastMRI's; ``from-file`` takes the array as ``mask``.
    parameters
        The fields of the sampler.

    >>> make_sampler("radial", {"acceleration": 8})
    RadialSpokes(acceleration=8)
    """
    cls = _SAMPLERS.get(name)
    if cls is None:
        raise UsageError(f"no sampler is called {name!r}{did_you_mean(str(name), _SAMPLERS)}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # all are dataclasses
    for key in parameters:
        if key not in known:
            raise UsageError(f"sampler {name!r} has no parameter {key!r}{did_you_mean(str(key), known)}")
    missing = [key for key, field in known.items() if field.default is MISSING and key not in parameters]
    if missing:
        raise UsageError(f"sampler {name!r} needs {' and '.join(missing)}")
    return cls(**parameters)


def did_you_mean(word: str, known: Mapping[str, object]) -> str:
    """Return the end of a message on an unknown name: the closest known one, or all of them."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
