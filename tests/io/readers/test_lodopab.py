"""LoDoPaB-CT, in the layout and the units of its files."""

import math

import h5py
import numpy as np
import pytest
import torch

from medrecon.io import read_scan
from medrecon.io.readers.lodopab import MU_MAX


@pytest.fixture
def files(tmp_path):
    """A disc of half the largest attenuation, radius 50 mm, by its closed form."""
    s = (np.arange(513) + 0.5) / 513 * 2 * 183.847763 - 183.847763
    chord = 2 * np.sqrt(np.maximum(50.0**2 - s**2, 0)) / 1000
    observation = np.broadcast_to(0.5 * chord, (2, 1000, 513)).astype("f4")
    with h5py.File(tmp_path / "observation_test_000.hdf5", "w") as out:
        out["data"] = observation
    y, x = np.mgrid[-130:130:362j, -130:130:362j]
    with h5py.File(tmp_path / "ground_truth_test_000.hdf5", "w") as out:
        out["data"] = np.stack([0.5 * (x**2 + y**2 < 2500)] * 2).astype("f4")
    return tmp_path / "observation_test_000.hdf5"


def test_units_and_geometry(files):
    scan = read_scan(files)
    assert scan.format == "lodopab"
    operator = scan.acquisition
    assert operator.data_shape == (1, 1000, 513)
    assert operator.pixel_size == pytest.approx(260 / 362)
    assert float(operator.angles[0, 0]) == pytest.approx(0.5 * math.pi / 1000)
    image = operator.filtered_backprojection(scan.measurements[1][None])[0, 0]
    true = scan.reference[1]
    assert float(true.max()) == pytest.approx(0.5 * MU_MAX / 1000)
    assert float(image[170:190, 170:190].mean()) == pytest.approx(0.5 * MU_MAX / 1000, rel=0.005)
    assert float((image - true).norm() / true.norm()) < 0.15


def test_without_ground_truth(files):
    (files.parent / "ground_truth_test_000.hdf5").unlink()
    assert read_scan(files).reference is None


def test_other_files_with_data_are_not_taken(tmp_path):
    from medrecon.io.readers.lodopab import LoDoPaBReader
    from medrecon.io.source import Source

    with h5py.File(tmp_path / "x.h5", "w") as out:
        out["data"] = np.zeros((2, 10, 513), "f4")
    with Source(tmp_path / "x.h5") as source:
        assert not LoDoPaBReader().recognises(source)


def test_measurements_are_line_integrals(files):
    scan = read_scan(files)
    expected = 0.5 * MU_MAX * 0.1  # through the middle: 100 mm of half the maximum
    assert float(scan.measurements[0][0, 3].max()) == pytest.approx(expected, rel=1e-3)
    assert torch.equal(scan.measurements[0], scan.measurements[1])
