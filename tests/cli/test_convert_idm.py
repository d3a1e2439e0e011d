"""``medrecon convert-idm``, there and back."""

import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.published import to_published


@pytest.fixture(scope="module")
def pickle(tmp_path_factory):
    """Return a file in the published layout, in a folder that tells the ratio."""
    torch.manual_seed(0)
    model = InvertibleDiffusionModel(steps=1, widths=[32, 64])
    folder = tmp_path_factory.mktemp("weight") / "R_0.10_T_1_B_32"
    folder.mkdir()
    torch.save(to_published(model), folder / "net_params_50.pkl")
    return folder / "net_params_50.pkl"


def test_there_and_back(medrecon_json, medrecon, pickle, tmp_path):
    found = medrecon_json("convert-idm", pickle, "-o", tmp_path / "model")
    assert (found["steps"], found["ratio"]) == (1, 0.1)
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "operator.yaml"]
    code, out, _ = medrecon("convert-idm", tmp_path / "model", "-o", tmp_path / "back.pkl")
    assert (code, out.strip()) == (0, str(tmp_path / "back.pkl"))
    before, after = (torch.load(path, weights_only=True) for path in (pickle, tmp_path / "back.pkl"))
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[key], value, atol=3e-7) for key, value in before.items())


def test_the_written_operator_serves(medrecon, medrecon_json, pickle, image_file, tmp_path):
    """From the published file to an image: convert, measure, reconstruct."""
    model = tmp_path / "model"
    assert medrecon("convert-idm", pickle, "-o", model, "--ratio", "0.5")[0] == 0
    simulate = ["simulate", image_file, "--operator", model / "operator.yaml", "--slices", "0:1", "-q"]
    code, _, errors = medrecon(*simulate, "-o", tmp_path / "cs.h5")
    assert code == 0, errors
    found = medrecon_json("reconstruct", tmp_path / "cs.h5", "-o", tmp_path / "x.nii.gz", "--checkpoint", model, "-q")
    assert found["method"] == "idm"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.pkl", "-o", "x"], 3, "missing.pkl: no such file"),
        (["{pickle}", "-o", "x", "--ratio", "2"], 2, "--ratio: expected a number in (0, 1]"),
        (["{pickle}", "-o", "x.pkl"], 2, "becomes a folder"),
        (["{pickle}", "-o", "{there}"], 2, "exists; give another -o, or --overwrite"),
        (["{pickle}"], 2, "output"),
        (["{there}", "-o", "y.pkl"], 3, "lacks config.json"),
    ],
)
def test_mistakes(medrecon, pickle, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("mine")
    found, _, errors = medrecon("convert-idm", *(part.format(pickle=pickle, there=there) for part in arguments))
    assert found == code
    assert message in errors
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


def test_a_pickle_that_runs_code_is_refused(medrecon, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"alpha": Evil()}, tmp_path / "evil.pkl")
    code, _, errors = medrecon("convert-idm", tmp_path / "evil.pkl", "-o", tmp_path / "model")
    assert code == 3
    assert "is no file of tensors" in errors
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "model").exists()
