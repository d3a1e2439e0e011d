"""Trained models of the package on the command line: by name, by themselves, and in the lists."""

import json

import numpy as np
import pytest
import torch

from medrecon.models import InvertibleDiffusionModel

SCOPE = {"modality": "mri", "acceleration": [1.5, 10], "coils": [1, 32], "matrix": [96, 640], "noise": 0.05}


@pytest.fixture
def ours(monkeypatch, tmp_path):
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", folder)
    torch.manual_seed(0)
    InvertibleDiffusionModel.from_preset("tiny", image_channels=2, steps=1).save(folder / "mri", half=True)
    (folder / "mri" / "scope.json").write_text(json.dumps(SCOPE))
    return folder


def limit(folder, **changes):
    (folder / "mri" / "scope.json").write_text(json.dumps({**SCOPE, **changes}))


def test_auto(medrecon, ours, scan_file, tmp_path):
    code, _, err = medrecon("reconstruct", scan_file, "-o", tmp_path / "out.npz")
    assert code == 0, err
    assert "method idm: R = 4.10, 8 coils: within the scope of the trained model 'mri'" in err
    with np.load(tmp_path / "out.npz") as file:
        assert np.isfinite(next(file[name] for name in file.files if file[name].ndim == 3)).all()
    sidecar = (tmp_path / "out.json").read_text()
    assert '"checkpoint": "mri"' in sidecar
    assert str(ours) not in sidecar


def test_dry_run_and_info_say_the_same(medrecon, medrecon_json, ours, scan_file, tmp_path):
    target = tmp_path / "out.npz"
    expected = {
        "name": "idm",
        "reason": "R = 4.10, 8 coils: within the scope of the trained model 'mri'",
        "checkpoint": "mri",
    }
    assert medrecon_json("reconstruct", scan_file, "-o", target, "--dry-run")["method"] == expected
    assert medrecon_json("info", scan_file)["method"] == expected
    asked = medrecon_json("reconstruct", scan_file, "-o", target, "--dry-run", "--checkpoint", "mri")["method"]
    assert asked == {"name": "idm", "reason": "asked for", "checkpoint": "mri"}
    asked = medrecon_json("reconstruct", scan_file, "-o", target, "--dry-run", "-m", "idm")["method"]
    assert asked == {"name": "idm", "reason": "asked for, with the trained model 'mri'", "checkpoint": "mri"}
    classical = medrecon_json("reconstruct", scan_file, "-o", target, "--dry-run", "--lambda", "0.01")["method"]
    assert classical == {"name": "tv", "reason": "the k-space is undersampled, R = 4.10"}
    limit(ours, coils=[1, 4])
    outside = medrecon_json("reconstruct", scan_file, "-o", target, "--dry-run")["method"]
    assert outside["name"] == "tv"
    assert outside["reason"].endswith(
        "; not the trained model 'mri': 8 coils are beyond the 1 to 4 that it was trained for"
    )
    assert not target.exists()


def test_by_name(medrecon, medrecon_json, ours, scan_file, tmp_path):
    automatic = medrecon_json("reconstruct", scan_file, "-o", tmp_path / "a.npz", "-q")
    named = medrecon_json("reconstruct", scan_file, "-o", tmp_path / "b.npz", "--checkpoint", "mri", "-q")
    assert automatic["residual"]["mean"] == pytest.approx(named["residual"]["mean"], rel=1e-4)
    code, _, err = medrecon("reconstruct", scan_file, "-o", tmp_path / "c.npz", "--checkpoint", "mir")
    assert code == 3
    assert "mir: no such folder; expected a model" in err
    assert "or one that comes with medrecon (mri)" in err


def test_lists(medrecon, medrecon_json, ours):
    found = medrecon_json("methods")["checkpoints"]
    assert found == {"mri": {"method": "idm", "scope": {**SCOPE, "noise": [0, 0.05]}}}
    code, out, _ = medrecon("methods")
    assert code == 0
    assert "Trained models, for --checkpoint" in out
    assert "acceleration 1.5 to 10" in " ".join(out.split())
    assert medrecon_json("doctor")["trained models"] == ["mri"]
    limit(ours, pattern={"lines": {}, "points": {"acceleration": [4, 10], "noise": 0.02}})
    words = " ".join(medrecon("methods")[1].split())
    assert "pattern lines or points (acceleration 4 to 10, noise 0 to 0.02)" in words


def test_lists_without_any(medrecon, medrecon_json):
    assert medrecon_json("methods")["checkpoints"] == {}
    assert "Trained models" not in medrecon("methods")[1]
    assert medrecon_json("doctor")["trained models"] == []
