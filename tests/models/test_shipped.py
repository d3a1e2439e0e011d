"""Trained models that come with the package: found by name, half the size, whole when loaded."""

import pytest
import torch
from safetensors.torch import load_file

from medrecon.errors import InputError, NumericalError
from medrecon.models import InvertibleDiffusionModel, load_trained
from medrecon.models.files import WEIGHTS
from medrecon.models.shipped import checkpoint_folder, shipped_models
from medrecon.operators import CartesianMRI


@pytest.fixture
def ours(tiny, monkeypatch, tmp_path):
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", folder)
    for name in ("mri", "ct"):
        tiny(image_channels=2, steps=2).save(folder / name, half=True)
    (folder / "unfinished").mkdir()
    return folder


def test_none_is_fine():
    assert shipped_models() == {}
    with pytest.raises(InputError, match=r"^mri: no such folder; expected a model .* by name: none comes with it"):
        checkpoint_folder("mri")


def test_names(ours, monkeypatch, tmp_path):
    assert shipped_models() == {"ct": ours / "ct", "mri": ours / "mri"}
    assert checkpoint_folder("mri") == ours / "mri"
    assert str(checkpoint_folder("./runs/mri")) == "runs/mri"
    with pytest.raises(InputError, match=r"^mir: no such folder; .* comes with medrecon \(ct, mri\)$"):
        load_trained("mir")
    load_trained("mri")
    InvertibleDiffusionModel.load("ct")
    (tmp_path / "mri").mkdir()
    monkeypatch.chdir(tmp_path)
    assert str(checkpoint_folder("mri")) == "mri"  # what lies there wins
    with pytest.raises(InputError, match=r"^mri: lacks config.json"):
        load_trained("mri")


def test_half_precision(tiny, ours, tmp_path):
    model = tiny(image_channels=2, steps=2)
    model.save(tmp_path / "full")
    stored = load_file(ours / "mri" / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert (ours / "mri" / WEIGHTS).stat().st_size < 0.75 * (tmp_path / "full" / WEIGHTS).stat().st_size
    back = load_trained("mri")
    assert {value.dtype for value in back.state_dict().values()} == {torch.float32}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    generator = torch.Generator().manual_seed(0)
    operator = CartesianMRI(torch.rand(24, 20, generator=generator) < 0.4)
    y = operator(torch.randn(1, 1, 24, 20, dtype=torch.complex64, generator=generator))
    with torch.no_grad():
        found, expected = back(y, operator), model(y, operator)
    assert float((found - expected).norm() / expected.norm()) < 5e-3


def test_weights_that_do_not_fit(tiny, tmp_path):
    model = tiny(image_channels=2, steps=1)
    with torch.no_grad():
        model.merge.fill_(1e6)
    with pytest.raises(NumericalError, match=r"1 tensors do not fit into half precision, the first is 'merge'"):
        model.save(tmp_path / "model", half=True)
    assert not list((tmp_path / "model").iterdir())
