"""The commands from end to end on a simulated scan: what a user types, what they get."""

import json

import h5py
import nibabel as nib
import numpy as np
import pytest

from medrecon.cli import main


def test_info(medrecon, scan_file):
    code, out, _ = medrecon("info", scan_file)
    assert code == 0
    for text in ("fastmri", "coils", "8", "128 x 160", "tv", "undersampled"):
        assert text in out


def test_info_json(medrecon_json, scan_file):
    found = medrecon_json("info", scan_file)
    assert found["slices"] == 2
    assert found["coils"] == 8
    assert 3 < found["acceleration"] < 4.5
    assert found["reference"] is True


@pytest.mark.parametrize("method", ["rss", "adjoint", "cg-sense", "tv", "l1-wavelet", "auto"])
def test_reconstruct_and_evaluate(medrecon_json, scan_file, tmp_path, method):
    result = medrecon_json("reconstruct", scan_file, "-m", method, "-o", tmp_path / "x.nii.gz", "-q")
    scores = medrecon_json("evaluate", tmp_path / "x.nii.gz", "--reference", scan_file)
    assert result["method"] == ("tv" if method == "auto" else method)
    assert scores.keys() >= {"nmse", "psnr", "ssim"}
    floor = {"rss": 15, "adjoint": 15, "cg-sense": 24}.get(method, 28)
    assert scores["psnr"] > floor


def test_geometry_survives_the_whole_way(medrecon, image_file, scan_file, tmp_path):
    code, out, _ = medrecon("reconstruct", scan_file, "-o", tmp_path / "x.nii.gz", "-q")
    assert code == 0
    assert out.split() == [str(tmp_path / "x.nii.gz"), str(tmp_path / "x.json")]
    original, result = nib.load(image_file), nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(result.affine, original.affine, atol=1e-4)
    a, b = original.get_fdata(), result.get_fdata()
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98


def test_slices_keep_their_place(medrecon, image_file, scan_file, tmp_path):
    assert medrecon("reconstruct", scan_file, "--slices", "1", "-o", tmp_path / "x.nii", "-q")[0] == 0
    original, result = nib.load(image_file), nib.load(tmp_path / "x.nii")
    assert result.shape == (160, 128, 1)
    np.testing.assert_allclose(result.affine @ [0, 0, 0, 1], original.affine @ [0, 0, 1, 1], atol=1e-4)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.dcm", "x.h5", "x.npz", "x.png"])
def test_suffix_decides_the_format(medrecon, scan_file, tmp_path, name):
    code, out, err = medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / name)
    assert code == 0, err
    assert all((tmp_path / line).exists() for line in out.split())
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["notice"] == "not for diagnostic use"
    assert "sha256" in json.dumps(record)


def test_folder_is_nifti(medrecon, scan_file, tmp_path):
    assert medrecon("reconstruct", scan_file, "-m", "rss", "-o", f"{tmp_path}/out/")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scan.nii.gz", "scan.json"}


def test_submission_layout(medrecon, scan_file, tmp_path):
    assert medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / "x.h5")[0] == 0
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].shape == (2, 128, 160)


def test_dry_run_writes_nothing(medrecon_json, scan_file, tmp_path):
    plan = medrecon_json("reconstruct", scan_file, "-o", tmp_path / "x.nii", "--dry-run")
    assert plan["method"]["name"] == "tv"
    assert not list(tmp_path.iterdir())


def test_parameters_reach_the_method(medrecon, scan_file, tmp_path):
    options = ("-m", "tv", "--lambda", "0.01", "--iterations", "3", "-q")
    assert medrecon("reconstruct", scan_file, "-o", tmp_path / "x.nii", *options)[0] == 0
    used = json.loads((tmp_path / "x.json").read_text())["provenance"]["parameters"]
    assert used["regularization"] == 0.01
    assert used["max_iter"] == 3


@pytest.mark.parametrize("maps", ["walsh", "low-resolution"])
def test_cheap_maps(medrecon_json, scan_file, tmp_path, maps):
    medrecon_json("reconstruct", scan_file, "-m", "cg-sense", "--maps", maps, "-o", tmp_path / "x.nii", "-q")
    assert medrecon_json("evaluate", tmp_path / "x.nii", "-r", scan_file)["psnr"] > 20


def test_two_folders(medrecon, medrecon_json, scan_file, tmp_path):
    for name in ("a", "b"):
        scan = tmp_path / "truth" / f"{name}.h5"
        scan.parent.mkdir(exist_ok=True)
        scan.write_bytes(scan_file.read_bytes())
    inputs = [tmp_path / "truth" / f"{name}.h5" for name in ("a", "b")]
    assert medrecon("reconstruct", *inputs, "-m", "rss", "-o", f"{tmp_path}/out/", "--format", "hdf5", "-q")[0] == 0
    scores = medrecon_json("evaluate", tmp_path / "out", "--reference", tmp_path / "truth")
    assert len(scores["volumes"]) == 2
    assert scores["psnr_2std"] == 0
    code, out, _ = medrecon("evaluate", tmp_path / "out", "--reference", tmp_path / "truth")
    assert code == 0
    assert "±" in out


@pytest.mark.parametrize("recipe", ["inpainting-50", "block-cs-25", "mri-poisson-8x", "mri-singlecoil-4x"])
def test_any_operator(medrecon, medrecon_json, image_file, tmp_path, recipe):
    scan = tmp_path / "scan.h5"
    assert medrecon("simulate", image_file, "--operator", recipe, "-o", scan, "-q")[0] == 0
    assert medrecon("reconstruct", scan, "-o", tmp_path / "x.nii.gz", "-q")[0] == 0
    assert medrecon_json("evaluate", tmp_path / "x.nii.gz", "-r", scan)["psnr"] > 18
    np.testing.assert_allclose(nib.load(tmp_path / "x.nii.gz").affine, nib.load(image_file).affine, atol=1e-4)


def test_simulation_repeats_for_a_seed(medrecon, image_file, tmp_path):
    def kspace(name, seed):
        command = ("simulate", image_file, "--operator", "mri-random-4x", "--noise", "0.1", "--seed", seed)
        assert medrecon(*command, "-o", tmp_path / name, "-q")[0] == 0
        with h5py.File(tmp_path / name) as file:
            return file["kspace"][:]

    assert np.array_equal(kspace("a.h5", 3), kspace("b.h5", 3))
    assert not np.array_equal(kspace("a2.h5", 3), kspace("c.h5", 4))


def test_operators_and_methods(medrecon, medrecon_json):
    assert "cartesian-mri" in medrecon("operators")[1]
    assert "mri-cartesian-4x" in medrecon("operators")[1]
    found = medrecon_json("methods")
    assert {"rss", "adjoint", "cg-sense", "tv", "l1-wavelet"} <= found["methods"].keys()
    assert found["default"] in found["methods"]


def test_doctor(medrecon):
    code, out, _ = medrecon("doctor")
    assert code == 0
    assert "works" in out
    assert "device" in out


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert "reconstruct" in capsys.readouterr().out
    assert main(["reconstruct", "--help"]) == 0
    out = capsys.readouterr().out
    for option in (
        "--method",
        "--lambda",
        "--axes",
        "--mask",
        "--maps",
        "--slices",
        "--device",
        "--threads",
        "--dry-run",
    ):
        assert option in out
    assert main(["--version"]) == 0
