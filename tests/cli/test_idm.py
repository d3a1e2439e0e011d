"""``medrecon reconstruct --checkpoint``."""

import json

import numpy as np
import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.files import WEIGHTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    InvertibleDiffusionModel.from_preset("tiny", image_channels=2, steps=2).save(path)
    return path


def test_reconstructs_a_scan(medrecon_json, medrecon, scan_file, folder, tmp_path):
    result = medrecon_json("reconstruct", scan_file, "-o", tmp_path / "out.npz", "--checkpoint", folder, "-q")
    assert result["method"] == "idm"
    with np.load(tmp_path / "out.npz") as file:
        volume = next(file[name] for name in file.files if file[name].ndim == 3)
    assert volume.shape[0] == 2
    assert np.isfinite(volume).all()
    sidecar = json.loads((tmp_path / "out.json").read_text())
    assert json.dumps(sidecar).count('"sha256"') >= 2  # of the data, and of the weights
    assert str(folder) not in json.dumps(sidecar)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "idm"], 2, "give it with --checkpoint"),
        (["--method", "tv", "--checkpoint", "x"], 2, "method 'tv' has no parameter 'checkpoint'"),
        (["--checkpoint", "nowhere"], 3, "nowhere: no such folder; expected a model"),
    ],
)
def test_mistakes(medrecon, scan_file, tmp_path, arguments, code, message):
    found, _, errors = medrecon("reconstruct", scan_file, "-o", tmp_path / "out.nii.gz", *arguments)
    assert found == code
    assert message in errors
    assert not list(tmp_path.iterdir())


def test_truncated_weights(medrecon, scan_file, folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((folder / "config.json").read_text())
    (broken / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    code, _, errors = medrecon("reconstruct", scan_file, "-o", tmp_path / "x.npz", "--checkpoint", broken)
    assert code == 3
    assert "cannot be loaded" in errors
