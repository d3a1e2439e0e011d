"""Import peers that insist on torchvision although what is measured here does not use it."""

import importlib
import importlib.machinery
import sys
import types
from typing import Any


class _Anything:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass


class _Stub(types.ModuleType):
    """Stands in for any module below ``torchvision``: every name in it is a class that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _StubFinder:
    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__path__ = []


def peer(name: str) -> types.ModuleType | None:
    """Import a peer, or return None and say so."""
    if not any(isinstance(finder, _StubFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StubFinder())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return None
