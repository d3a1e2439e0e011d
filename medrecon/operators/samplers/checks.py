"""Checks of sampler parameters; they come from hand-written YAML, so types are checked as well."""

from medrecon.errors import UsageError


def real(owner: str, name: str, value: object, low: float, high: float = float("inf")) -> float:
    """Return a number of ``[low, high)``; anything else is an error that names the parameter."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
        raise UsageError(f"{owner}: {name} must be a number in [{low:g}, {high:g}), got {value!r}")
    return value


def flag(owner: str, name: str, value: object) -> bool:
    """Return a boolean; the strings and numbers that YAML might give instead are errors."""
    if not isinstance(value, bool):
        raise UsageError(f"{owner}: {name} must be true or false, got {value!r}")
    return value


def choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return one of the named choices."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{owner}: {name} must be one of {', '.join(choices)}; got {value!r}")
    return value


def feasible(owner: str, acceleration: float, centre: float) -> None:
    """Refuse a fully sampled centre (a fraction of the grid) that already exceeds the sampling budget."""
    if centre * acceleration >= 1:
        raise UsageError(
            f"{owner}: the fully sampled centre takes {centre:.3g} of k-space, acceleration {acceleration:g} leaves "
            f"{1 / acceleration:.3g} in all; lower center_fraction or acceleration until their product is below 1"
        )
