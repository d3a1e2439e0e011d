"""Every model says how often it calls a network, and does."""

import pytest
import torch

from medrecon.models import build_model
from medrecon.models.network_calls import each_network_call
from medrecon.operators import Inpainting


@pytest.mark.parametrize(
    ("name", "parameters", "count"),
    [
        ("idm", {}, 3),
        ("idm", {"shared": False}, 3),
        ("unet", {}, 1),
        ("varnet", {}, 2),
        ("ddnm", {"steps": 5}, 5),
        ("bcm", {"sweeps": 3, "renoise": "gaussian"}, 3),
        ("bcm", {"sweeps": 3, "renoise": "amplify"}, 6),
        ("dddm", {"steps": 4}, 4),
    ],
)
def test_calls(name, parameters, count):
    torch.manual_seed(0)
    model = build_model(name, image_channels=1, preset="tiny", parameters=parameters).eval()
    operator, calls = Inpainting(torch.rand(1, 16, 12) < 0.5), []
    data = operator(torch.rand(2, 1, 16, 12))
    with torch.no_grad(), each_network_call(model, lambda: calls.append(None)):
        model(data, operator)
    assert len(calls) == model.network_calls == count
    with torch.no_grad():
        model(data, operator)
    assert len(calls) == count  # nothing is left behind
