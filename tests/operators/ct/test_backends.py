"""Every device finds its projector."""

from importlib.util import find_spec

import pytest

from medrecon.operators.ct import backends


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("geometry", ["parallel", "fan", "pixel"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_module_is_there(monkeypatch, device, geometry, installed):
    monkeypatch.setattr(backends, "_present", lambda _: installed)
    name = backends.module_name(geometry, device)
    assert find_spec(name) is not None
    fast = {"cpu": "numba", "cuda": "torch" if geometry == "pixel" else "triton", "mps": "torch"}[device]
    assert (fast if installed else "torch") in name
