"""Data Exchange files, small ones and a real tooth."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from medrecon.errors import InputError
from medrecon.io import ReadOptions, read_scan
from medrecon.operators import ParallelBeam2D

TOOTH = Path(__file__).parents[3] / "../shared/data/ct_projections/tomopy_tooth/tooth.h5"


@pytest.fixture
def file(tmp_path):
    """Three detector rows of a disc, counted by a detector of uneven gain."""
    operator = ParallelBeam2D((32, 32), torch.arange(90) * math.pi / 90, detector_count=48, center_of_rotation=-2.5)
    y, x = np.mgrid[15.5:-16:-1, -15.5:16]
    disc = torch.from_numpy(((x - 4) ** 2 + y**2 < 81).astype("f4"))[None, None] * 0.05
    lines = operator(torch.cat([disc, 2 * disc, 3 * disc]))[:, 0].numpy()
    gain = np.linspace(900, 1100, 48)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as out:
        group = out.create_group("exchange")
        group["data"] = (20 + gain * np.exp(-lines)).transpose(1, 0, 2).astype("u2")
        group["data_white"] = np.broadcast_to(20 + gain, (4, 3, 48)).astype("u2")
        group["data_dark"] = np.full((2, 3, 48), 20, "u2")
        group["theta"] = np.arange(90) * 2.0
        group["theta"].attrs["units"] = np.bytes_(b"degrees")
    return path, lines


def test_rows_are_slices(file):
    path, lines = file
    scan = read_scan(path)
    assert scan.format == "data-exchange"
    assert len(scan.measurements) == 3
    assert np.allclose(scan.measurements[1][0].numpy(), lines[1], atol=0.02)
    assert scan.acquisition.center_of_rotation == pytest.approx(-2.5, abs=0.3)
    notes = " ".join(scan.notes)
    assert "--pixel-size" in notes
    assert "found at detector column 21." in notes


def test_pixel_size_and_center(file):
    scan = read_scan(file[0], ReadOptions(pixel_size=0.01, center=21.0))
    assert scan.acquisition.pixel_size == 0.01
    assert scan.acquisition.center_of_rotation == pytest.approx(-0.025)
    assert scan.geometry.spacing == pytest.approx((0.01, 0.01, 0.01))


def edit(path, change):
    with h5py.File(path, "a") as out:
        change(out)


def replaced(name, values):
    def change(out):
        del out[name]
        out[name] = values

    return change


def radians(out):
    del out["exchange/theta"]
    out["exchange/theta"] = np.arange(90) * math.pi / 90
    out["exchange/theta"].attrs["units"] = np.bytes_(b"radians")


def test_radians(file):
    edit(file[0], radians)
    scan = read_scan(file[0], ReadOptions(center=21.0))
    assert float(scan.acquisition.angles[0, -1]) == pytest.approx(89 * math.pi / 90)


def test_without_white_field_the_values_are_line_integrals(file):
    edit(file[0], lambda out: out.__delitem__("exchange/data_white"))
    scan = read_scan(file[0], ReadOptions(center=21.0))
    notes = " ".join(scan.notes)
    assert "taken for line integrals" in notes
    assert "are these counts" in notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.__delitem__("exchange/theta"), "no angles"),
        (replaced("exchange/theta", np.arange(89.0)), "89 angles for 90 views"),
        (replaced("exchange/theta", np.full(90, np.nan)), "exchange/theta holds NaN"),
        (replaced("exchange/theta", np.array([b"a"] * 90)), "expected angles"),
        (replaced("exchange/theta", np.deg2rad(np.arange(90) * 2.0)), "is angle_unit rad"),
        (replaced("exchange/data_white", np.ones((2, 3, 47))), "'exchange/data_white' has shape"),
        (replaced("exchange/data", np.ones((90, 48))), "'exchange/data' has shape"),
        (replaced("exchange/data_white", np.zeros((2, 3, 48))), "no signal"),
    ],
)
def test_errors(file, change, message):
    edit(file[0], change)
    with pytest.raises(InputError, match=message):
        read_scan(file[0])


@pytest.mark.skipif(not TOOTH.exists(), reason="the shared sinogram of a tooth is not there")
def test_tooth():
    scan = read_scan(TOOTH)
    column = scan.acquisition.center_of_rotation + (640 - 1) / 2
    assert column == pytest.approx(296, abs=1)
    image = scan.acquisition.filtered_backprojection(scan.measurements[0][None])[0, 0]
    # enamel and dentine, and air between the fringes of the field of view
    assert float(image.quantile(0.99)) > 5 * float(image.quantile(0.5).abs())
