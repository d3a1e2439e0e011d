"""CT through the commands: Hounsfield units in, counts between, Hounsfield units out."""

import json
import math
import shutil
import subprocess

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.ndimage import binary_erosion

from medrecon.io import load_image


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """Two slices of a torso in HU, with lungs and a spine, on a tilted and shifted grid."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    body = np.where((x / 0.9) ** 2 + (y / 0.6) ** 2 < 1, 40.0, -1000.0)
    body[((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.4) ** 2 < 1] = -800
    body[x**2 + (y - 0.4) ** 2 < 0.01] = 700
    affine = np.array([[-3.5, 0, 0, 160], [0, -3.5, 0, 170], [0, 0, 5, -40], [0, 0, 0, 1.0]])
    path = tmp_path_factory.mktemp("chest") / "chest.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([body, body[:, ::-1]]).transpose(2, 1, 0).astype(np.float32), affine), path)
    return path, body, affine


def test_there_and_back(medrecon, medrecon_json, chest, tmp_path):
    path, body, affine = chest
    code, _, log = medrecon("simulate", path, "--operator", "ct-parallel-60", "--counts", 1e5, "-o", tmp_path / "s.h5")
    assert code == 0, log
    found = medrecon_json("info", tmp_path / "s.h5")
    assert found["format"] == "sinogram"
    assert found["views"] == 60
    assert found["method"]["name"] == "tv"
    for method in ("tv", "fbp"):
        out = tmp_path / f"{method}.dcm"
        code, _, log = medrecon("reconstruct", tmp_path / "s.h5", "-m", method, "-o", out)
        assert code == 0, log
    scores = {
        method: medrecon_json("evaluate", tmp_path / method, "-r", tmp_path / "s.h5")["psnr"]
        for method in ("tv", "fbp")
    }
    assert scores["tv"] > scores["fbp"] + 4
    image = load_image(tmp_path / "tv")
    assert np.allclose(image.geometry.affine, affine, atol=1e-4)
    assert float(image.array[0][44:52, 44:52].mean()) == pytest.approx(float(body[44:52, 44:52].mean()), abs=25)
    record = json.loads((tmp_path / "tv.json").read_text())
    assert record["provenance"]["unit"] == "HU"
    assert record["provenance"]["parameters"]["regularization"] == 0.0005
    first = pydicom.dcmread(sorted((tmp_path / "tv").glob("*.dcm"))[0])
    assert first.SOPClassUID.name == "CT Image Storage"
    if shutil.which("dciodvfy"):
        for file in (tmp_path / "tv").glob("*.dcm"):
            done = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
            assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def test_noiseless_fan(medrecon, chest, tmp_path):
    path, body, _ = chest
    assert medrecon("simulate", path, "--operator", "ct-fan-360", "--slices", "0", "-o", tmp_path / "s.h5")[0] == 0
    assert medrecon("reconstruct", tmp_path / "s.h5", "-o", tmp_path / "i.nii.gz", "-m", "fbp")[0] == 0
    image = nib.load(tmp_path / "i.nii.gz").get_fdata()[..., 0].T
    inside = binary_erosion(body > -900, iterations=2) & binary_erosion(body < 600, iterations=2)
    assert np.abs(image - body)[inside].mean() < 40


@pytest.fixture
def exchange(tmp_path):
    """A Data Exchange file of a disc whose axis is seen at column 21."""
    u = np.arange(48) - 21.0
    theta = np.arange(60) * 3.0
    offset = 5 * np.cos(np.deg2rad(theta))[:, None]
    chord = 2 * np.sqrt(np.maximum(81 - (u - offset) ** 2, 0)) * 0.03
    with h5py.File(tmp_path / "scan.h5", "w") as out:
        group = out.create_group("exchange")
        group["data"] = (1000 * np.exp(-chord))[:, None].astype("f4")
        group["data_white"] = np.full((1, 1, 48), 1000, "f4")
        group["data_dark"] = np.zeros((1, 1, 48), "f4")
        group["theta"] = theta
    return tmp_path / "scan.h5"


def test_data_exchange(medrecon, exchange, tmp_path):
    code, _, log = medrecon("reconstruct", exchange, "-o", tmp_path / "a.npz", "--method", "fbp", "--filter", "hann")
    assert code == 0
    assert "centre of rotation found at detector column 2" in log
    image = np.load(tmp_path / "a.npz")["array"][0]
    assert image.shape == (48, 48)
    assert image[22:26, 26:30].mean() == pytest.approx(0.03, rel=0.03)


def test_options(medrecon, exchange, tmp_path):
    code, _, log = medrecon(
        "reconstruct", exchange, "-o", tmp_path / "a.dcm", "--center", "21", "--pixel-size", "0.5",
        "--image-size", "40", "--suppress-rings", "--mu-water", "0.02", "--nonnegative",
        "-m", "tv", "--iterations", "10",
    )  # fmt: skip
    assert code == 0, log
    data = pydicom.dcmread(tmp_path / "a.dcm")
    assert (data.Rows, data.Columns) == (40, 40)
    assert [float(value) for value in data.PixelSpacing] == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--center", "left"], 2, "--center left: expected a detector column"),
        (["--center", "200"], 3, "does not lie on the detector"),
        (["--mu-water", "-1"], 2, "--mu-water -1"),
        (["-m", "tv", "--filter", "hann"], 2, "has no parameter 'filter'"),
        (["--image-size", "0"], 2, "--image-size 0"),
        (["--pixel-size", "0"], 2, "--pixel-size 0"),
    ],
)
def test_usage(medrecon, exchange, tmp_path, options, code, message):
    found, _, log = medrecon("reconstruct", exchange, "-o", tmp_path / "a.nii.gz", *options)
    assert found == code, log
    assert message in log
    assert not (tmp_path / "a.nii.gz").exists()


def test_attenuation_is_no_dicom(medrecon, exchange, tmp_path):
    code, _, log = medrecon("reconstruct", exchange, "-o", tmp_path / "a.dcm", "-m", "fbp")
    assert code == 2
    assert "--mu-water" in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--operator", "ct-parallel-60", "--noise", "0.1"], "--counts"),
        (["--operator", "block-cs-10", "--counts", "100"], "are for CT, not for block-cs-10"),
        (["--operator", "ct-parallel-60", "--unit", "mu"], "--unit hu"),
        (["--operator", "ct-parallel-60", "--counts", "0"], "counts must be a positive number"),
    ],
)
def test_simulate_usage(medrecon, chest, tmp_path, options, message):
    code, _, log = medrecon("simulate", chest[0], "-o", tmp_path / "s.h5", *options)
    assert code == 2
    assert message in log
    assert not (tmp_path / "s.h5").exists()


def test_nan_in_the_reference_of_nothing(medrecon, exchange, tmp_path):
    with h5py.File(exchange, "a") as out:
        out["exchange/data"][3, 0, 7] = math.nan
    code, _, log = medrecon("reconstruct", exchange, "-o", tmp_path / "a.nii.gz")
    assert code == 4
    assert "view 3, bin 7" in log
    assert medrecon("reconstruct", exchange, "-o", tmp_path / "a.nii.gz", "--nonfinite", "zero")[0] == 0
