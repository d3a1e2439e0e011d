"""The trained models that come with the package: what they promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

import medrecon
from medrecon.io import load_image
from medrecon.io.scan import CartesianAcquisition
from medrecon.metrics import psnr
from medrecon.operators import CartesianMRI
from medrecon.operators.samplers.registry import make_sampler
from medrecon.reconstructors import make_method
from medrecon.reconstructors.mri import slice_operator
from medrecon.reconstructors.scope import read_scope
from medrecon.simulation import CoilArray, simulate, smooth_phase

SHIPPED = Path(medrecon.__file__).parent / "checkpoints"
MODELS = sorted(path.parent for path in SHIPPED.glob("*/config.json"))


@pytest.fixture(autouse=True)
def shipped(monkeypatch, shipped_folder):
    """See the real ones."""
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", SHIPPED)


def test_they_are_small():
    assert MODELS
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 25e6


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_they_say_what_they_are_for(folder):
    assert read_scope(folder) is not None
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Not a medical device" in card
    for part in ("Data", "Scope", "Figures", "Known failures"):
        assert f"## {part}" in card


@pytest.fixture(scope="module")
def abdomen():
    """A real MR image, which comes with pydicom; nothing was trained on it."""
    image = load_image(get_testdata_file("examples_overlay.dcm", download=False)).array[0]
    return torch.from_numpy(np.ascontiguousarray(image, np.float32) / image.max())


@pytest.mark.parametrize("kind", ["random", "equispaced-fraction"])
def test_mri_is_better_than_tv(abdomen, kind):
    generator = torch.Generator().manual_seed(0)
    mask = make_sampler(kind, {"acceleration": 4, "center_fraction": 0.08}).draw(tuple(abdomen.shape), generator)
    operator = CartesianMRI(mask, image_shape=tuple(abdomen.shape))
    y = simulate(abdomen[None, None].to(torch.complex64), operator, noise=0.005, generator=generator).measurements
    assert gain_over_tv(abdomen, y, operator) > 0.3


@pytest.mark.parametrize("kind", ["radial", "variable-density-points"])
def test_so_it_is_with_points(abdomen, kind):
    """Of one coil; with several the scope sends them elsewhere."""
    generator = torch.Generator().manual_seed(0)
    shape = (abdomen.shape[0], abdomen.shape[1])
    mask = make_sampler(kind, {"acceleration": 8}).draw(shape, generator).expand(shape) > 0
    operator = CartesianMRI(mask)
    y = simulate(abdomen[None, None].to(torch.complex64), operator, noise=0.005, generator=generator).measurements
    assert gain_over_tv(abdomen, y, operator) > 0.3
    reason = read_scope("mri").refusal(operator, y.expand(-1, 4, -1, -1))
    assert reason == "4 coils are beyond the 1 that it was trained for"


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_so_it_is_with_several_coils(abdomen, noise):
    """Without noise too: the network adds none beside the body."""
    generator = torch.Generator().manual_seed(0)
    shape = (abdomen.shape[0], abdomen.shape[1])
    mask = make_sampler("random", {"acceleration": 4, "center_fraction": 0.08}).draw(shape, generator) > 0
    image = torch.polar(abdomen, smooth_phase(shape, generator))
    true = CartesianMRI(mask, CoilArray(6).draw(shape, generator))
    kspace = simulate(image[None], true, noise=noise, generator=generator).measurements[0]
    built = slice_operator(kspace, CartesianAcquisition(mask=mask), 0)
    y, operator = built.measurements, built.operator
    assert gain_over_tv(abdomen, y, operator) > 0.5


def gain_over_tv(truth, y, operator):
    """In dB, of a scan within the scope."""
    assert read_scope("mri").refusal(operator, y) is None
    ours, tv = (method(y, operator)[0, 0].abs().numpy() for method in (learned(), make_method("tv")))
    return psnr(truth.numpy(), ours) - psnr(truth.numpy(), tv)


def learned():
    return make_method("idm", {"checkpoint": "mri"})


def test_mri_makes_nothing_of_noise(abdomen):
    """The scope refuses noise alone; who asks for the model all the same gets noise, no anatomy."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(256, generator=generator) < 0.25
    operator = CartesianMRI(mask, image_shape=(256, 256))
    y = operator.mask * torch.randn(1, 1, 256, 256, dtype=torch.complex64, generator=generator)
    assert read_scope("mri").refusal(operator, y).startswith("noise of ")
    found = learned()(y, operator)[0, 0].abs()
    correlation = torch.corrcoef(torch.stack([found.flatten(), abdomen[:256, 20:276].flatten()]))[0, 1]
    assert float(correlation.abs()) < 0.1
