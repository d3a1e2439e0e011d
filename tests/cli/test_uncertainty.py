"""``medrecon reconstruct --uncertainty``."""

import numpy as np
import pytest
import torch

from medrecon.models.ddpm import DiffusionPrior


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "prior"
    DiffusionPrior.from_preset("tiny", image_channels=2).save(path)
    return path


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
