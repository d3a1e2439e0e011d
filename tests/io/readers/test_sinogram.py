"""Our own sinograms: written and read again, in HDF5 and in NumPy's formats."""

import json
import math

import h5py
import numpy as np
import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.io import Geometry, ReadOptions, read_scan, write_sinogram
from medrecon.operators import FanBeam2D, ParallelBeam2D

AFFINE = np.array([[-0.5, 0, 0, 9], [0, -0.5, 0, 8], [0, 0, 3, 7], [0, 0, 0, 1.0]])


def parallel():
    return ParallelBeam2D((16, 16), torch.arange(30) * math.pi / 30, pixel_size=0.5, center_of_rotation=0.3)


def fan():
    return FanBeam2D(
        (16, 16),
        torch.arange(30) * math.pi / 15,
        source_origin=30,
        source_detector=50,
        detector_count=31,
        detector_pitch=0.8,
        detector_shape="arc",
        pixel_size=0.5,
    )


@pytest.fixture(params=[parallel, fan], ids=["parallel", "fan"])
def measured(request):
    operator = request.param()
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.05
    return operator, images, operator(images)


def test_round_trip(tmp_path, measured):
    operator, images, y = measured
    geometry = Geometry(AFFINE)
    write_sinogram(tmp_path / "s.h5", y, operator, reference=images[:, 0], geometry=geometry, mu_water=0.019)
    scan = read_scan(tmp_path / "s.h5")
    assert scan.format == "sinogram"
    assert scan.acquisition.config() == operator.config()
    assert torch.allclose(scan.acquisition.angles, operator.angles)
    assert all(torch.equal(scan.measurements[index], y[index]) for index in range(3))
    assert torch.equal(scan.reference[1], images[1, 0])
    assert np.allclose(scan.geometry.affine, AFFINE)
    assert scan.mu_water == 0.019


def test_counts(tmp_path, measured):
    operator, _, y = measured
    write_sinogram(tmp_path / "s.h5", 5e4 * torch.exp(-y), operator, quantity="counts", i0=5e4)
    scan = read_scan(tmp_path / "s.h5")
    assert torch.allclose(scan.measurements[2], y[2], atol=1e-4)
    assert not scan.geometry.oriented


def test_spacing_without_position(tmp_path, measured):
    operator, _, y = measured
    write_sinogram(tmp_path / "s.h5", y, operator, geometry=Geometry.from_spacing((0.5, 0.5, 4.0), (3, 16, 16)))
    scan = read_scan(tmp_path / "s.h5")
    assert scan.geometry.spacing == (0.5, 0.5, 4.0)
    assert not scan.geometry.oriented


def card(bins, **data):
    return {
        "medrecon_ct": 1,
        "geometry": "parallel",
        "detector": {"count": bins, "pitch": 0.5},
        "angles": {"start": 0, "span": 180, "count": 30},
        "angle_unit": "deg",
        "center_of_rotation": 0.3,
        "image": {"shape": [16, 16], "pixel": 0.5},
        "data": {"quantity": "line_integral", "unit": "dimensionless", **data},
    }


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        (["slice", "view", "det"], (0, 1, 2)),
        (["view", "slice", "det"], (1, 0, 2)),
        (["det", "view", "slice"], (2, 1, 0)),
    ],
)
def test_npz(tmp_path, axes, order):
    y = parallel()(torch.rand(2, 1, 16, 16))[:, 0]
    geometry = json.dumps(card(y.shape[2], axes=axes))
    np.savez(tmp_path / "s.npz", sinogram=y.permute(order).numpy(), geometry=geometry)
    scan = read_scan(tmp_path / "s.npz")
    assert torch.allclose(scan.measurements[1][0], y[1])
    assert scan.acquisition.center_of_rotation == 0.3


def test_npz_with_fields_and_angles(tmp_path):
    y = parallel()(torch.rand(2, 1, 16, 16))[:, 0]
    white = np.full((2, 3, y.shape[2]), 900.0)
    np.savez(
        tmp_path / "s.npz",
        sinogram=(900 * torch.exp(-y)).numpy(),
        white=white,
        dark=np.zeros(y.shape[2]),
        angles=np.arange(30) * 6.0,
        reference=np.ones((2, 16, 16)),
        geometry=json.dumps(card(y.shape[2], quantity="counts", unit="photons")),
    )
    scan = read_scan(tmp_path / "s.npz")
    assert torch.allclose(scan.measurements[0][0], y[0], atol=1e-5)
    assert scan.reference.shape == (16, 16)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_npy_with_a_description_beside_it(tmp_path, suffix):
    y = parallel()(torch.rand(1, 1, 16, 16))[0, 0]
    np.save(tmp_path / "s.npy", y.numpy())
    (tmp_path / f"s{suffix}").write_text(json.dumps(card(y.shape[1])))
    assert torch.allclose(read_scan(tmp_path / "s.npy").measurements[0][0], y)


def test_unknown_center_is_estimated(tmp_path):
    y = parallel()(torch.ones(1, 1, 16, 16) * 0.05)[0, 0]
    given = card(y.shape[1])
    del given["center_of_rotation"]
    np.savez(tmp_path / "s.npz", sinogram=y.numpy(), geometry=json.dumps(given))
    scan = read_scan(tmp_path / "s.npz")
    assert scan.acquisition.center_of_rotation == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"white": np.ones(5)}, r"'white' has shape \(5,\)"),
        ({"reference": np.ones((7, 16, 16))}, "'reference' has shape"),
        ({"sinogram": np.ones((2, 3, 30, 24))}, "data.axes are"),
        ({"sinogram": np.ones((30, 24), complex)}, "expected real numbers"),
        ({"geometry": '{"medrecon_ct": 1'}, "not valid JSON"),
        ({"sinogram": np.full((30, 24), np.nan)}, "NaN"),
    ],
)
def test_errors(tmp_path, arrays, message):
    base = {"sinogram": np.ones((1, 30, 24)), "geometry": json.dumps(card(24, quantity="counts", unit="photons", i0=2))}
    np.savez(tmp_path / "s.npz", **{**base, **arrays})
    with pytest.raises(InputError, match=message):
        read_scan(tmp_path / "s.npz")


def test_attributes_are_checked(tmp_path, measured):
    operator, _, y = measured
    write_sinogram(tmp_path / "s.h5", y, operator)
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file["sinogram"].attrs["detektor.count"] = 3
    with pytest.raises(InputError, match=r"unknown key 'detektor.count'"):
        read_scan(tmp_path / "s.h5")


def test_mri_options_are_refused(tmp_path, measured):
    operator, _, y = measured
    write_sinogram(tmp_path / "s.h5", y, operator)
    with pytest.raises(UsageError, match="--mask"):
        read_scan(tmp_path / "s.h5", ReadOptions(mask=tmp_path / "s.h5"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"data": torch.zeros(2, 1, 3, 4)}, "the data have shape"), ({"quantity": "counts"}, "counts need i0")],
)
def test_writer_errors(tmp_path, measured, changes, message):
    operator, _, y = measured
    arguments = {"data": y, "operator": operator, **changes}
    with pytest.raises(UsageError, match=message):
        write_sinogram(tmp_path / "s.h5", **arguments)
    assert not list(tmp_path.iterdir())
