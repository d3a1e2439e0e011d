"""medrecon train, evaluate and reconstruct with what it leaves behind."""

import json

import h5py
import numpy as np
import pytest
import yaml

CARD = {
    "name": "small",
    "data": {"kind": "phantoms", "operator": "mri-singlecoil-4x", "count": 6, "size": [24, 20], "validation": 0.34},
    "model": {"preset": "tiny", "parameters": {"steps": 1}, "memory": "none"},
    "training": {"epochs": 2, "batch_size": 2, "workers": 0, "log_every": 1},
}


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(CARD))
    return path


def test_train_resume_evaluate(medrecon, card, tmp_path):
    run = tmp_path / "run"
    code, out, err = medrecon("train", card, "-o", run, "--training.epochs", "1", "--seed=3")
    assert code == 0, err
    assert out.strip() == str(run / "model")
    assert "4 slices (4 files) to train on, 2 (2) to validate on" in err
    assert "1 epochs; best ssim" in err
    assert yaml.safe_load((run / "recipe.yaml").read_text())["seed"] == 3
    code, out, err = medrecon("train", "--resume", run, "--training.epochs=2", "--json")
    assert code == 0, err
    assert json.loads(out)["epochs"] == 2
    code, out, err = medrecon("evaluate", run, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert len(report["volumes"]) == 2
    assert json.loads((run / "evaluation" / "evaluation.json").read_text()) == report
    assert (run / "evaluation" / "evaluation.png").is_file()
    code, out, err = medrecon("evaluate", run, "-o", tmp_path / "there")
    assert code == 0
    assert "SSIM" in out
    assert (tmp_path / "there" / "evaluation.png").is_file()


def test_fastmri_from_training_to_submission(medrecon, fastmri_folder, tmp_path):
    train, val, test = (
        fastmri_folder(kind, count, 2, name=name)
        for kind, count, name in (("multi", 3, "train"), ("multi", 2, "val"), ("multi", 2, "test"))
    )
    for path in test.iterdir():  # the layout of a test set
        with h5py.File(path, "r+") as file:
            lines = np.arange(48) % 4 == 0
            lines[19:29] = True
            file["kspace"][...] = file["kspace"][...] * lines
            file["mask"] = lines
            del file["reconstruction_rss"]
    run, submission = tmp_path / "run", tmp_path / "submission"
    small = ["--model.preset", "tiny", "--model.parameters", "{steps: 1}", "--training.workers", "0"]
    mask = ["--data.mask.acceleration", "[4, 2]", "--data.mask.center-fraction", "[0.16, 0.3]"]
    folders = ["--data", train, "--validation", val, "-o", run]
    code, _, err = medrecon("train", "mri-idm", *folders, "--training.epochs", "1", *small, *mask)
    assert code == 0, err
    code, out, err = medrecon("evaluate", run, "--data", val, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert sum(group["volumes"] for group in report["groups"]) == len(report["volumes"]) == 2
    assert all(group["group"].startswith("CORPD_FBK ") for group in report["groups"])
    code, _, err = medrecon("reconstruct", test, "-o", f"{submission}/", "--checkpoint", run)
    assert code == 0, err
    files = sorted(submission.glob("*.h5"))
    assert [path.name for path in files] == [path.name for path in sorted(test.iterdir())]
    with h5py.File(files[0]) as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].shape == (2, 32, 32)
    provenance = json.loads((submission / "file000.json").read_text())["provenance"]
    assert provenance["slices"][0]["maps"].startswith("low-resolution")  # as in training


def test_the_same_image_as_in_the_evaluation(medrecon, fastmri_folder, tmp_path):
    """Training crops the read-out and estimates maps in a way of its own; a reconstruction follows it."""
    from medrecon.pipelines.training.judge import judge

    folder, run = fastmri_folder("single", 3, 2), tmp_path / "run"
    mask = ["--data.mask", "{sampler: random, acceleration: 1.0001, center_fraction: 0.98}"]
    small = ["--model.preset", "tiny", "--model.parameters", "{steps: 1}", "--training.workers", "0"]
    code, _, err = medrecon("train", "mri-idm", "--data", folder, "-o", run, "--training.epochs", "1", *small, *mask)
    assert code == 0, err
    (score,) = judge(run).verdict.scores
    medrecon("reconstruct", folder / score.volume, "-o", tmp_path / "one.h5", "--checkpoint", run)
    code, out, err = medrecon("evaluate", tmp_path / "one.h5", "-r", folder / score.volume, "--json")
    assert code == 0, err
    assert json.loads(out)["ssim"] == pytest.approx(score.scores["ssim"], abs=0.02)


def test_keys_and_dry_run(medrecon, card):
    code, out, _ = medrecon("train", "--keys")
    assert code == 0
    assert "training.learning_rate" in out
    assert "data.readout_patch" in out
    code, out, _ = medrecon(
        "train", "mri-images", "--data", "a", "b", "--dry-run", "--training.epochs=2", "--data", "c"
    )
    assert code == 0
    assert yaml.safe_load(out)["data"]["train"] == ["a", "b", "c"]
    code, out, _ = medrecon("train", card, "--dry-run", "--validation", "elsewhere", "--data.augment", "false")
    assert code == 0
    shown = yaml.safe_load(out)
    assert shown["data"]["validation"] == ["elsewhere"]
    assert shown["data"]["augment"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "x"], 2, "a recipe is needed, such as mri-idm"),
        (["mri-idn"], 2, "no training recipe is called 'mri-idn'; did you mean 'mri-idm'?"),
        (["CARD", "--training.epoch", "3"], 2, "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (["CARD", "--outptu", "3"], 2, "unknown key 'outptu'"),
        (["CARD", "--training.epochs"], 2, "--training.epochs: needs a value"),
        (["CARD", "--training.epochs", "[1"], 2, "'[1' is not a value"),
        (["CARD", "stray"], 2, "stray: expected a field of the recipe"),
        (["--resume", "NOWHERE"], 3, "no such folder; expected the folder of a training run"),
        (["CARD", "--resume", "NOWHERE"], 2, "--resume takes its recipe and its folder from the run"),
        (["CARD", "--model.method", "idn"], 2, "no model is called 'idn'; did you mean 'idm'?"),
        (["CARD", "--model.preset", "huge"], 2, "huge"),
        (["CARD", "--data.operator", "mri"], 2, "no operator recipe is called 'mri'"),
        (["CARD", "--model.start", "NOWHERE"], 3, "no such folder"),
        (["mri-idm", "--data", "NOWHERE"], 3, "expected a folder of fastMRI volumes"),
    ],
)
def test_mistakes(medrecon, card, tmp_path, arguments, code, message):
    words = [{"CARD": card, "NOWHERE": tmp_path / "nowhere"}.get(word, word) for word in arguments]
    output = [] if "--resume" in words else ["-o", tmp_path / "run"]
    found, _, err = medrecon("train", *words, *output)
    assert found == code, err
    assert message in err
    assert "Traceback" not in err


def test_evaluate_tells_runs_and_images_apart(medrecon, tmp_path):
    found, _, err = medrecon("evaluate", tmp_path)
    assert found == 2
    assert "give --reference to compare images with" in err
    found, _, err = medrecon("evaluate", tmp_path, "-r", tmp_path, "--data.mask.acceleration", "4")
    assert found == 2
    assert "--data.mask.acceleration: is for the folder of a training run" in err
