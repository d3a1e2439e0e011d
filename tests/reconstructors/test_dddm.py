"""The Directly Denoising Diffusion Model as a method."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.models import build_model
from medrecon.models.dddm_sampling import DDDMSteps
from medrecon.operators import Inpainting
from medrecon.reconstructors import available_methods, make_method, method_of_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name in ("dddm", "unet"):
        torch.manual_seed(0)
        parameters = {"steps": 3, "noise": 0.1} if name == "dddm" else {}
        model = build_model(name, image_channels=2, preset="tiny", parameters=parameters)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save(root / name / "model")
    return root


def made(folder, **parameters):
    return make_method("dddm", {"checkpoint": str(folder / "dddm"), **parameters})


def test_a_run(folder, brain):
    assert method_of_checkpoint(folder / "dddm") == "dddm"
    assert available_methods()["dddm"].parameters == ("checkpoint", "samples", "noise", "steps")
    method = made(folder)
    image = method(brain.data, brain.operator)
    assert image.shape == (1, 1, 64, 48)
    assert image.dtype == torch.complex64
    assert bool(torch.isfinite(image.abs()).all())
    for factor in (1e-18, 1e6):
        scaled = method(brain.data * factor, brain.operator) / factor
        assert float((scaled - image).norm() / image.norm()) < 1e-4
    both = method(torch.cat((torch.zeros_like(brain.data), brain.data)), brain.operator)
    assert both[0].abs().max() == 0


def test_parameters(folder, brain):
    """What the model was made for, unless something else is asked for."""
    settings = made(folder).settings(brain.operator)
    assert (settings["steps"], settings["noise"], settings["samples"]) == (3, 0.1, 1)
    settings = made(folder, steps=1, noise=0.0, samples=2).settings(brain.operator)
    assert (settings["steps"], settings["noise"], settings["samples"]) == (1, 0.0, 2)
    assert len(settings["sha256"]) == 64


def test_draws(folder, brain):
    """The mean of the samples; each is the model's own for that noise."""
    seen = []
    method = made(folder, samples=2, steps=1)
    mean = method(brain.data, brain.operator, progress=lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    drawn = method.draws(brain.data, brain.operator)
    assert torch.allclose(drawn.mean(0), mean, atol=1e-6 * float(mean.abs().max()))
    assert float((drawn[0] - drawn[1]).norm()) > 0
    with torch.no_grad():
        own = method.model.reconstruct(
            brain.data, brain.operator, DDDMSteps(1), noise=0.1, generator=torch.Generator().manual_seed(0)
        )
    assert float((drawn[0] - own).norm() / own.norm()) < 1e-4


def test_the_data_are_kept(tmp_path):
    torch.manual_seed(0)
    build_model("dddm", image_channels=1, preset="tiny").save(tmp_path)
    operator = Inpainting(torch.rand(1, 24, 20) < 0.6)
    data = operator(torch.rand(1, 1, 24, 20))
    image = make_method("dddm", {"checkpoint": str(tmp_path)})(data, operator)
    assert float((operator(image) - data).norm() / data.norm()) < 1e-5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 0}, "steps starts at 1, got 0"),
        ({"steps": 1.5}, "dddm: steps is a number of network calls, got 1.5"),
        ({"samples": 0}, "dddm: samples starts at 1, got 0"),
        ({"noise": 2.0}, "dddm: noise is a share of the brightest pixels, 0 to 1, got 2.0"),
    ],
)
def test_wrong_parameters(folder, parameters, message):
    with pytest.raises(UsageError, match=message):
        made(folder, **parameters)


def test_checkpoint_of_another_model(folder):
    with pytest.raises(UsageError, match="holds a UNetBaseline, expected the model 'dddm'; use --method unet"):
        make_method("dddm", {"checkpoint": str(folder / "unet")})
