"""BCM as a method: a tiny model in a folder, all operators, all promises of a method."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.models import build_model
from medrecon.operators import BlockCompressedSensing, Inpainting
from medrecon.reconstructors import available_methods, make_method, method_of_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A training run for real images, and one for complex ones."""
    root = tmp_path_factory.mktemp("runs")
    for channels in (1, 2):
        torch.manual_seed(0)
        model = build_model("bcm", image_channels=channels, preset="tiny")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        model.save(root / str(channels) / "model")
    return root


def method(folders, channels=1, **parameters):
    return make_method("bcm", {"checkpoint": str(folders / str(channels)), "sweeps": 2, **parameters})


def block_cs():
    return BlockCompressedSensing((1, 24, 20), 0.3, block_size=8)


def test_complex_images(folders, brain):
    found = method(folders, 2)
    image = found(brain.data, brain.operator)
    assert image.shape == (1, 1, 64, 48)
    assert image.dtype == torch.complex64
    for factor in (1e-18, 1e6):
        scaled = found(brain.data * factor, brain.operator) / factor
        assert float((scaled - image).norm() / image.norm()) < 1e-3
    both = found(torch.cat((torch.zeros_like(brain.data), brain.data)), brain.operator)
    assert both[0].abs().max() == 0
    assert bool(torch.isfinite(both.abs()).all())


@pytest.mark.parametrize("renoise", ["amplify", "gaussian"])
def test_real_images_explain_exact_data(folders, renoise):
    operator = block_cs()
    y = operator(torch.rand(2, 1, 24, 20))
    image = method(folders, renoise=renoise)(y, operator)
    assert image.shape == (2, 1, 24, 20)
    assert float((operator(image) - y).abs().max()) < 1e-5 * float(y.abs().max())


def test_repeats_and_draws(folders):
    operator = Inpainting(torch.rand(1, 16, 12) < 0.5)
    y = operator(torch.rand(1, 1, 16, 12))
    bcm, calls = method(folders, samples=3), []
    image = bcm(y, operator, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
    assert torch.equal(bcm(y, operator), image)
    drawn = bcm.draws(y, operator)
    assert drawn.shape == (3, 1, 1, 16, 12)
    assert torch.allclose(drawn.mean(0), image, atol=1e-6)
    assert not torch.allclose(drawn[0], drawn[1])
    other = bcm(y, operator, generator=torch.Generator().manual_seed(5))
    assert not torch.allclose(other, image)
    noisy = method(folders, noise=0.2)(y, operator)
    assert float((operator(noisy) - y).abs().max()) > 1e-3


def test_listed_and_rebuilt(folders):
    bcm = method(folders)
    assert method_of_checkpoint(folders / "1") == "bcm"
    info = available_methods()["bcm"]
    assert list(info.parameters) == list(bcm.config())
    assert info.summary.startswith("BCM: ")
    settings = bcm.settings(block_cs())
    assert (settings["sweeps"], settings["renoise"], settings["checkpoint"]) == (2, "gaussian", "1")
    assert make_method("bcm", bcm.config()).config() == bcm.config()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sweeps": 0}, "BCM: sweeps starts at 1"),
        ({"renoise": "none"}, "BCM: renoise is amplify or gaussian, got 'none'"),
        ({"ratio": 2.0}, "BCM: expected 0 < ratio < 1"),
        ({"samples": 0}, "bcm: samples starts at 1"),
        ({"noise": 1.0}, "bcm: noise is a share of the brightest pixels"),
    ],
)
def test_wrong_parameters(folders, wrong, message):
    with pytest.raises(UsageError, match=message):
        method(folders, **wrong)


def test_times_of_another_model(folders):
    operator = block_cs()
    with pytest.raises(UsageError, match=r"leave those of the model, 0\.002 to 20"):
        method(folders, highest=40.0)(operator(torch.rand(1, 1, 24, 20)), operator)
