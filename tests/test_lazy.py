import pytest

import medrecon.operators
from medrecon.lazy import lazy_names


def test_names_are_found_where_they_are():
    get = lazy_names("medrecon", {"InputError": "errors"})
    assert get("InputError").__module__ == "medrecon.errors"


def test_unknown_names_fail_as_usual():
    with pytest.raises(AttributeError, match=r"module 'medrecon\.operators' has no attribute 'nonsense'"):
        medrecon.operators.nonsense  # noqa: B018


@pytest.mark.parametrize("package", ["datasets", "io", "models", "operators", "pipelines", "reconstructors"])
def test_everything_announced_is_there(package):
    module = __import__(f"medrecon.{package}", fromlist=["x"])
    assert module.__all__ == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
