"""Trained models as methods: each takes its own checkpoints and says which method takes another's."""

import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.models import build_model
from medrecon.operators import Inpainting
from medrecon.reconstructors import (
    InvertibleDiffusion,
    LearnedReconstructor,
    ResidualUNet,
    VariationalNetwork,
    available_methods,
    make_method,
    method_of_checkpoint,
)

METHODS = {"idm": InvertibleDiffusion, "unet": ResidualUNet, "varnet": VariationalNetwork}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A training run of every model."""
    root = tmp_path_factory.mktemp("runs")
    for name in METHODS:
        torch.manual_seed(0)
        build_model(name, image_channels=2, preset="tiny").save(root / name / "model")
    return root


@pytest.mark.parametrize("name", METHODS)
def test_run_folders(folders, name, brain):
    folder = folders / name
    assert method_of_checkpoint(folder) == method_of_checkpoint(str(folder / "model")) == name
    assert available_methods()[name].parameters == ("checkpoint",)
    method = make_method(name, {"checkpoint": str(folder)})
    assert type(method) is METHODS[name]
    assert isinstance(method, LearnedReconstructor)
    image = method(brain.data, brain.operator)
    assert image.shape == (1, 1, 64, 48)
    assert image.dtype == torch.complex64
    for factor in (1e-18, 1e6):
        scaled = method(brain.data * factor, brain.operator) / factor
        assert float((scaled - image).norm() / image.norm()) < 1e-4
    both = method(torch.cat((torch.zeros_like(brain.data), brain.data)), brain.operator)
    assert both[0].abs().max() == 0
    settings = method.settings(brain.operator)
    assert settings["checkpoint"] == name
    assert settings == {
        **make_method(name, {"checkpoint": str(folder / "model")}).settings(brain.operator),
        "checkpoint": name,
    }


@pytest.mark.parametrize(("name", "calls"), [("idm", 3), ("unet", 1), ("varnet", 2)])
def test_progress_by_network_call(folders, name, calls, brain):
    method, seen = make_method(name, {"checkpoint": str(folders / name)}), []
    for _ in range(2):  # nothing is left behind
        seen.clear()
        method(brain.data, brain.operator, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(step, calls) for step in range(1, calls + 1)]


@pytest.mark.parametrize(("name", "other"), [("idm", "unet"), ("unet", "varnet"), ("varnet", "idm")])
def test_checkpoint_of_another_model(folders, name, other):
    kinds = {"idm": "InvertibleDiffusionModel", "unet": "UNetBaseline", "varnet": "UnrolledNetwork"}
    message = f"^{name}: .*{other} holds a {kinds[other]}, expected the model '{name}'; use --method {other}$"
    with pytest.raises(UsageError, match=message):
        make_method(name, {"checkpoint": str(folders / other)})


@pytest.mark.parametrize("name", METHODS)
def test_needs_a_checkpoint(name, tmp_path):
    with pytest.raises(UsageError, match=f"{name}: needs the folder of a trained model, give it with --checkpoint"):
        make_method(name)
    with pytest.raises(InputError, match="no such folder; expected a model"):
        make_method(name, {"checkpoint": str(tmp_path / "none")})


def test_method_of_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"lacks config.json; expected a model"):
        method_of_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(
        InputError, match=r"describes a UNet2DModel, expected one of .*InvertibleDiffusionModel, UNetBaseline"
    ):
        method_of_checkpoint(tmp_path)


def test_a_model_that_knows_one_unit(tmp_path):
    """With a fixed intensity the result is that of the model itself: the data are not brought to another unit."""
    torch.manual_seed(0)
    model = build_model("idm", image_channels=1, preset="tiny", parameters={"intensity": 0.02, "steps": 1})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save(tmp_path)
    operator = Inpainting(torch.rand(1, 24, 20) < 0.6)
    data = operator(0.02 * torch.rand(1, 1, 24, 20))
    with torch.no_grad():
        expected = model(data, operator)
    found = make_method("idm", {"checkpoint": str(tmp_path)})(data, operator)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
