"""``medrecon methods``: how measurements can be reconstructed."""

from typing import Any

from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import Json


def methods(*, as_json: Json = False) -> None:
    """List the reconstruction methods, ours and those of other packages, and the trained models that come with us."""
    from medrecon.reconstructors.choice import DEFAULT_METHOD, RSS
    from medrecon.reconstructors.registry import MethodInfo, available_methods

    rss = MethodInfo("Root sum of squares of the zero-filled coil images (MRI only).", "medrecon", ())
    found = {RSS: rss, **available_methods()}
    models = _trained_models()
    if as_json:
        table = {name: info._asdict() for name, info in found.items()}
        print_json({"default": DEFAULT_METHOD, "methods": table, "checkpoints": models})
        return
    rows = [(name, info.summary, ", ".join(info.parameters), info.origin) for name, info in found.items()]
    print_table("Methods", ("name", "what", "parameters", "from"), rows)
    if models:
        shown = [(name, model["method"], _words(model["scope"])) for name, model in models.items()]
        print_table("Trained models, for --checkpoint", ("name", "method", "trained for"), shown)


def _trained_models() -> dict[str, Any]:
    from medrecon.models.shipped import shipped_models
    from medrecon.reconstructors.learned import method_of_checkpoint
    from medrecon.reconstructors.scope import read_scope

    found = {}
    for name, folder in shipped_models().items():
        scope = read_scope(folder)
        found[name] = {"method": method_of_checkpoint(folder), "scope": None if scope is None else scope.to_dict()}
    return found


def _words(scope: dict[str, Any] | None) -> str:
    if scope is None:
        return "(does not say)"
    limits = _limits({key: value for key, value in scope.items() if key != "modality"})
    return ", ".join([scope["modality"], *limits]).replace("_", " ")


def _limits(limits: dict[str, Any]) -> list[str]:
    return [f"{key} {_range(value)}" for key, value in limits.items()]


def _range(value: list[Any] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        return " or ".join(f"{name} ({', '.join(_limits(own))})" if own else name for name, own in value.items())
    low, high = value[0], value[-1]
    if isinstance(low, str):
        return " or ".join(value)
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"
