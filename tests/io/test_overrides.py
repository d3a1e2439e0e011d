import numpy as np
import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.options import ReadOptions
from medrecon.io.overrides import refuse_overrides, with_overrides
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack
from medrecon.operators import CartesianMRI


@pytest.fixture
def scan(tmp_path):
    stack = SliceStack.from_tensor(torch.ones(3, 2, 6, 4, dtype=torch.complex64))
    geometry = Geometry.from_spacing((1, 1, 1), (3, 6, 4))
    return Scan(tmp_path / "scan.h5", "test", stack, CartesianAcquisition(), geometry)


@pytest.fixture
def save(tmp_path):
    def write(array):
        path = tmp_path / "side.npy"
        np.save(path, array)
        return path

    return write


def test_nothing_given_changes_nothing(scan):
    assert with_overrides(scan, ReadOptions()) is scan


@pytest.mark.parametrize("shape", [(4,), (6, 4), (1, 6, 4), (3, 6, 4), (1, 1, 4, 1)])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_masks_of_all_shapes(scan, save, shape, dtype):
    values = np.zeros(shape, dtype)
    values.reshape(-1, 4)[:, 1:3] = 1
    mask = with_overrides(scan, ReadOptions(mask=save(values))).acquisition.mask
    assert mask.dtype == torch.bool
    assert mask.broadcast_to(3, 6, 4).float().mean() == 0.5


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(5), r"side\.npy.* 5 .*6x4"),
        (np.ones((5, 4)), r"\(5, 4\) does not fit"),
        (np.ones((2, 6, 4)), r"shape \(2, 6, 4\), but the k-space has 3 slices of 6 x 4"),
        (np.arange(8) % 2, "expected"),  # of a larger grid: these lines are in the file already
        (np.full(4, -1.0), "side"),
        (np.zeros(4), "0 everywhere"),
        (np.full(4, np.nan), "side"),
    ],
)
def test_wrong_masks_are_input_errors(scan, save, array, message):
    with pytest.raises(InputError, match=message):
        with_overrides(scan, ReadOptions(mask=save(array)))


@pytest.mark.parametrize(("shape", "full"), [((2, 6, 4), (1, 1, 2, 6, 4)), ((3, 2, 2, 6, 4), (3, 2, 2, 6, 4))])
def test_maps(scan, save, shape, full):
    values = np.arange(np.prod(shape)).reshape(shape) + 1j
    maps = with_overrides(scan, ReadOptions(maps=save(values))).acquisition.maps
    assert (maps.shape, maps.dtype) == (full, torch.complex64)
    np.testing.assert_array_equal(maps.numpy().reshape(shape), values.astype(np.complex64))


@pytest.mark.parametrize("shape", [(3, 6, 4), (2, 6, 5), (2, 2, 2, 6, 4, 1, 1)])
def test_wrong_maps_and_calibration_are_input_errors(scan, save, shape):
    path = save(np.ones(shape, np.complex64))
    with pytest.raises(InputError, match="side"):
        with_overrides(scan, ReadOptions(maps=path))
    if shape[0] != 2:
        with pytest.raises(InputError, match="3 coils, but the scan has 2"):
            with_overrides(scan, ReadOptions(calibration=path))


def test_calibration_serves_every_slice(scan, save):
    stack = with_overrides(
        scan, ReadOptions(calibration=save(np.ones((2, 4, 3), np.complex64)))
    ).acquisition.calibration
    assert len(stack) == 3
    assert stack[2].shape == (2, 4, 3)


def test_scans_with_their_own_operator_refuse_side_files(scan, save):
    own = Scan(scan.source, "test", scan.measurements, CartesianMRI(image_shape=(6, 4)), scan.geometry)
    with pytest.raises(UsageError, match=r"own forward operator \(CartesianMRI\); --mask apply"):
        refuse_overrides(own, ReadOptions(mask=save(np.ones(4))))
    refuse_overrides(own, ReadOptions())
