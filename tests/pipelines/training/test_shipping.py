"""From a run to a model of the package: half the size, with its card and scope, and no path of the machine."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.models import build_model, load_trained
from medrecon.models.files import DETAILS, WEIGHTS
from medrecon.models.shipped import shipped_models
from medrecon.pipelines.training.judge import judge
from medrecon.pipelines.training.shipping import public_details, ship
from medrecon.reconstructors.scope import read_scope

ROOT = Path(__file__).parents[3]
SCOPE = "modality: mri\nacceleration: [2, 8]\nnoise: 0.05\n"


def details(data):
    recipe = {
        "name": "ours",
        "data": {"kind": "images", "operator": "mri-singlecoil-4x", "train": [f"{data}/brains", f"{data}/t1.npz"]},
        "model": {"start": f"{data}/runs/before"},
    }
    recipe["data"]["validation"] = [f"{data}/held-out"]
    run = {"started": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2"}, "fingerprint": "ab", "data": "3 slices"}
    return {"recipe": recipe, "epoch": 3, "validation": {"ssim": 0.9}, "reconstruction": {}, "run": run}


@pytest.fixture
def run(tmp_path):
    """What a training run leaves."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    build_model("idm", image_channels=2, preset="tiny", parameters={"steps": 1}).save(folder / "model", card="mine")
    (folder / "model" / DETAILS).write_text(json.dumps(details(tmp_path)))
    return folder


@pytest.fixture
def recipes(monkeypatch, tmp_path):
    """Folder of the recipes, with one called as that of the run."""
    folder = tmp_path / "recipes"
    (folder / "ours").mkdir(parents=True)
    monkeypatch.setattr("medrecon.pipelines.training.shipping.card_folder", lambda _: folder)
    return folder / "ours"


@pytest.fixture(autouse=True)
def package(monkeypatch, tmp_path):
    folder = tmp_path / "package"
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", folder)
    return folder


def test_ship(run, recipes, package, tmp_path):
    (recipes / "card.md").write_text("# What this is\n")
    (recipes / "scope.yaml").write_text(SCOPE)
    folder = ship(run, "mri")
    assert shipped_models() == {"mri": folder} == {"mri": package / "mri"}
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", WEIGHTS, "scope.json", DETAILS]
    assert (folder / "README.md").read_text() == "# What this is\n"
    assert read_scope("mri").limits["acceleration"] == (2, 8)
    stored = json.loads((folder / DETAILS).read_text())
    assert stored["recipe"]["data"]["train"] == ["brains", "t1.npz"]
    assert stored["recipe"]["data"]["validation"] == ["held-out"]
    assert stored["recipe"]["model"]["start"] == "before"
    assert stored["validation"] == {"ssim": 0.9}
    assert stored["run"]["data"] == "3 slices"
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    model, back = load_trained(run), load_trained("mri")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    with pytest.raises(UsageError, match=r"^mri: does not say where the data of its training lie"):
        judge(Path("mri"))


def test_without_card_and_scope(run, recipes, tmp_path):
    scope = tmp_path / "mine.yaml"
    scope.write_text(SCOPE)
    assert (ship(run, "mri", scope) / "scope.json").is_file()
    folder = ship(run / "model", "mri")
    assert not (folder / "scope.json").exists()
    card = (folder / "README.md").read_text()
    assert "brains" in card
    assert "| ssim | 0.9 |" in card
    assert str(tmp_path) not in card


def test_paths_elsewhere(run, recipes, package):
    for text in ("see /srv/data/brains", 'file "C:\\data"', "(~/runs/a)"):
        (recipes / "card.md").write_text(f"Trained, {text}\n")
        with pytest.raises(UsageError, match=r"^card: holds a path of this machine"):
            ship(run, "mri")
    (recipes / "card.md").write_text("1/mm, and/or, [data](../docs/idm.md), https://example.org/data, 10 % / 20 %\n")
    ship(run, "mri")
    path = run / "model" / DETAILS
    content = json.loads(path.read_text())
    content["recipe"]["data"]["operator"] = "/srv/operators/mine.yaml"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"^training.json: holds a path of this machine \(.*/srv/operators"):
        ship(run, "other")
    assert list(shipped_models()) == ["mri"]


def test_mistakes(run, recipes, tmp_path):
    for name in ("", "MRI", "a/b", "../a", "a b"):
        with pytest.raises(UsageError, match="expected a name of lower-case letters"):
            ship(run, name)
    shutil.copytree(run / "model", tmp_path / "bare", ignore=shutil.ignore_patterns(DETAILS))
    with pytest.raises(InputError, match=r"bare: holds no training\.json"):
        ship(tmp_path / "bare", "mri")
    (recipes / "scope.yaml").write_text("modality: mri\nviews: 3\n")
    with pytest.raises(InputError, match=r"^scope.yaml: unknown key 'views'"):
        ship(run, "mri")
    assert shipped_models() == {}


def test_details_stay_as_they_are_for_the_run():
    before = details("/data")
    after = public_details(before)
    assert before == details("/data")
    assert after["run"] == {"started": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2"}, "data": "3 slices"}
    assert public_details({"recipe": {"data": {"kind": "phantoms"}}})["run"] == {}


def test_script(run, recipes, package, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("ship_script", ROOT / "pipelines" / "ship.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["ship.py", str(run), "cs"])
    script.main()
    assert WEIGHTS in capsys.readouterr().out
    assert list(shipped_models()) == ["cs"]
