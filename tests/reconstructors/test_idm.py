"""The method ``idm``: a trained model that keeps the promises of every method."""

import pytest
import torch

from medrecon.errors import InputError, NumericalError, OperatorError, UsageError
from medrecon.models import InvertibleDiffusionModel
from medrecon.operators import Inpainting
from medrecon.reconstructors import InvertibleDiffusion, available_methods, make_method


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = InvertibleDiffusionModel.from_preset("tiny", image_channels=2, steps=2)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model.save(path)
    return path


@pytest.fixture
def method(folder):
    return InvertibleDiffusion(str(folder))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_is_a_method(method, folder, brain):
    assert "idm" in available_methods()
    made = make_method("idm", {"checkpoint": str(folder)})
    image = made(brain.data, brain.operator)
    assert image.shape == (1, 1, 64, 48)
    assert image.dtype == torch.complex64
    assert not image.requires_grad
    assert torch.equal(image, method(brain.data, brain.operator))
    assert not any(module.training for module in made.modules())
    settings = method.settings(brain.operator)
    assert settings["checkpoint"] == "tiny"
    assert len(settings["sha256"]) == 64


def test_scales_with_the_data_and_keeps_zeros(method, brain):
    image = method(brain.data, brain.operator)
    for factor in (1e-18, 1e-6, 1e6):
        assert relative(method(brain.data * factor, brain.operator) / factor, image) < 1e-4
    both = method(torch.cat((torch.zeros_like(brain.data), brain.data)), brain.operator)
    assert both[0].abs().max() == 0
    assert relative(both[1], image[0]) < 1e-4


def test_bad_data(method, brain):
    data = brain.data.clone()
    data[0, 0, 32, 24] = float("nan")
    with pytest.raises(NumericalError, match=r"NaN or Inf in the measurements of sample\(s\) \[0\]"):
        method(data, brain.operator)
    with pytest.raises(OperatorError, match=r"expected measurements of shape"):
        method(brain.data[:, :2], brain.operator)
    with pytest.raises(OperatorError, match=r"images of 2 real channels"):
        method(torch.ones(1, 1, 8, 8), Inpainting(torch.ones(1, 8, 8)))


def test_overflow_is_an_error(folder, tmp_path, brain):
    model = InvertibleDiffusionModel.load(folder)
    with torch.no_grad():
        model.unet.conv_out.weight.fill_(3e38)
    model.save(tmp_path)
    with pytest.raises(NumericalError, match=r"idm: .* gives NaN or Inf for these data"):
        InvertibleDiffusion(str(tmp_path))(brain.data, brain.operator)


def test_needs_a_checkpoint(tmp_path):
    with pytest.raises(UsageError, match=r"idm: needs the folder of a trained model, give it with --checkpoint"):
        make_method("idm")
    with pytest.raises(InputError, match=r"no such folder"):
        make_method("idm", {"checkpoint": str(tmp_path / "none")})
