"""Packages whose names are imported when they are first used (PEP 562), so that ``import medrecon`` stays light."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package: each public name is found in the sub-module that is given for it."""

    def get(name: str) -> Any:  # noqa: ANN401 (whatever the name stands for)
        if name in modules:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
