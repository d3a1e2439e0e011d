"""The Helsinki challenge's files, of MATLAB's versions 5 and 7.3."""

import contextlib

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from medrecon.errors import InputError
from medrecon.io import read_scan
from medrecon.operators import FanBeam2D

PARAMETERS = {
    "distanceSourceOrigin": 410.66,
    "distanceSourceDetector": 553.74,
    "pixelSizePost": 0.2,
    "numDetectorsPost": 60,
    "scanner": "a text",
}


@pytest.fixture
def sinogram():
    angles = np.arange(0, 360, 4.0)
    operator = FanBeam2D(
        (60, 60),
        torch.deg2rad(torch.from_numpy(angles)),
        source_origin=410.66,
        source_detector=553.74,
        detector_count=60,
        detector_pitch=0.2,
        pixel_size=0.2 * 410.66 / 553.74,
    )
    y, x = np.mgrid[29.5:-30:-1, -29.5:30]
    image = torch.from_numpy(((x - 5) ** 2 + (y - 9) ** 2 < 150).astype("f4"))[None, None]
    return angles, operator(image)[0, 0].numpy(), image


def version5(path, angles, sinogram, compressed):
    content = {"sinogram": sinogram, "type": "2D", "parameters": {**PARAMETERS, "angles": angles[None]}}
    savemat(path, {"CtDataFull": content}, do_compression=compressed)


def version73(path, angles, sinogram):
    with h5py.File(path, "w", userblock_size=512) as out:
        group = out.create_group("CtDataLimited")
        group["sinogram"] = sinogram.T
        inner = group.create_group("parameters")
        inner["angles"] = angles[:, None]
        for name, value in PARAMETERS.items():
            if not isinstance(value, str):
                inner[name] = np.array([[float(value)]])
    with path.open("r+b") as out:
        out.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


@pytest.mark.parametrize("kind", ["plain", "compressed", "7.3"])
def test_reads_and_reconstructs(tmp_path, sinogram, kind):
    angles, y, image = sinogram
    path = tmp_path / "htc.mat"
    version73(path, angles, y) if kind == "7.3" else version5(path, angles, y, kind == "compressed")
    scan = read_scan(path)
    assert scan.format == "htc2022"
    assert torch.allclose(scan.measurements[0][0], torch.from_numpy(y).float())
    assert scan.acquisition.source_detector == 553.74
    result = scan.acquisition.filtered_backprojection(scan.measurements[0][None])
    assert float((result - image).norm() / image.norm()) < 0.3


def test_missing_parameters(tmp_path, sinogram):
    angles, y, _ = sinogram
    savemat(tmp_path / "htc.mat", {"CtDataFull": {"sinogram": y, "parameters": {"angles": angles}}})
    with pytest.raises(InputError, match="distanceSourceOrigin"):
        read_scan(tmp_path / "htc.mat")


def test_other_mat_files_are_not_taken(tmp_path):
    savemat(tmp_path / "x.mat", {"kspace": np.ones((4, 4), np.complex64)})
    assert read_scan(tmp_path / "x.mat").format == "arrays"


def test_truncated_and_mutated_structs(tmp_path, sinogram):
    angles, y, _ = sinogram
    path = tmp_path / "htc.mat"
    version5(path, angles, y, compressed=False)
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    for trial in range(150):
        bad = bytearray(good[: 4000 + 40 * trial] if trial % 3 == 0 else good)
        for at in generator.integers(128, min(len(bad), 1200), 4):
            bad[at] = generator.integers(256)
        path.write_bytes(bad)
        with contextlib.suppress(InputError):
            read_scan(path)
