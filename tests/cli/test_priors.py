"""``medrecon reconstruct`` with the systems that draw, on a scan and on a sinogram; ``--uncertainty``."""

import nibabel as nib
import numpy as np
import pytest
import torch

from medrecon.cli import main
from medrecon.models import build_model

SYSTEMS = {"ddnm": ["--steps", "3"], "bcm": [], "dddm": ["--steps", "2"], "idm": []}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained models for real and for complex images."""
    folder = tmp_path_factory.mktemp("models")
    for channels in (1, 2):
        for name in SYSTEMS:
            torch.manual_seed(0)
            model = build_model(name, image_channels=channels, preset="tiny")
            model.save(folder / f"{name}{channels}")
    return folder


@pytest.fixture(scope="module")
def folder(models):
    return models / "ddnm2"


@pytest.fixture(scope="module")
def sinogram_file(tmp_path_factory):
    """A body of 40 HU in air, 60 views."""
    folder = tmp_path_factory.mktemp("sinogram")
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    body = np.where((x / 0.9) ** 2 + (y / 0.6) ** 2 < 1, 40.0, -1000.0).astype(np.float32)
    nib.save(nib.Nifti1Image(body.T[..., None], np.diag([3.0, 3.0, 5.0, 1.0])), folder / "body.nii.gz")
    command = ["simulate", folder / "body.nii.gz", "--operator", "ct-parallel-60", "-o", folder / "sinogram.h5", "-q"]
    assert main(list(map(str, command))) == 0
    return folder / "sinogram.h5"


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("kind", ["scan", "sinogram"])
def test_reconstructs(medrecon_json, scan_file, sinogram_file, models, name, kind, tmp_path):
    file, channels = (scan_file, 2) if kind == "scan" else (sinogram_file, 1)
    arguments = ["--checkpoint", models / f"{name}{channels}", "--slices", "0:1", *SYSTEMS[name], "-q"]
    result = medrecon_json("reconstruct", file, "-o", tmp_path / "out.npz", *arguments)
    assert result["method"] == name
    assert np.isfinite(volume(tmp_path / "out.npz")).all()


def volume(path):
    with np.load(path) as file:
        return next(file[name] for name in file.files if file[name].ndim == 3)


def test_writes_a_second_image(medrecon_json, scan_file, folder, tmp_path):
    arguments = ["--checkpoint", folder, "--steps", "3", "--samples", "2", "--uncertainty", "-q"]
    result = medrecon_json("reconstruct", scan_file, "-o", tmp_path / "out.npz", *arguments)
    assert result["method"] == "ddnm"
    assert str(tmp_path / "out_std.npz") in result["output"]
    image, deviation = volume(tmp_path / "out.npz"), volume(tmp_path / "out_std.npz")
    assert deviation.shape == image.shape
    assert np.isfinite(deviation).all()
    assert deviation.min() >= 0
    assert deviation.max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "tv", "--uncertainty"], "method 'tv' makes one image"),
        (["--uncertainty"], "makes one image"),
        (["--method", "rss", "--uncertainty"], "method 'rss' makes one image"),
        (["--checkpoint", "FOLDER", "--uncertainty", "--samples", "1"], "give --samples 2 or more"),
    ],
)
def test_mistakes(medrecon, scan_file, folder, tmp_path, arguments, message):
    arguments = [str(folder) if word == "FOLDER" else word for word in arguments]
    code, _, errors = medrecon("reconstruct", scan_file, "-o", tmp_path / "out.npz", *arguments)
    assert code == 2
    assert message in errors
    assert not list(tmp_path.iterdir())
