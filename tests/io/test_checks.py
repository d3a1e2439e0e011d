import logging
from pathlib import Path

import pytest
import torch

from medrecon.errors import NumericalError
from medrecon.io.checks import checked, with_checks
from medrecon.io.geometry import Geometry
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack

PATH = Path("knee.h5")


@pytest.fixture
def stack():
    data = torch.ones(3, 2, 5, 4, dtype=torch.complex64)
    data[1, 1, 4, 2] = complex(0, float("nan"))
    data[1, 1, 4, 3] = float("inf")
    data[2] = 0
    return SliceStack.from_tensor(data)


def test_a_nan_is_named_by_slice_coil_and_line(stack):
    safe = checked(stack, PATH)
    assert torch.equal(safe[0], stack[0])
    with pytest.raises(
        NumericalError,
        match=r"knee\.h5: k-space of slice 1 holds 2 NaN or infinite samples of 40, "
        r"the first at coil 1, line 2, sample 4; .*--nonfinite zero.*--slices",
    ):
        safe[1]


def test_zero_replaces_and_says_so(stack, caplog):
    safe = checked(stack, PATH, nonfinite="zero")
    with caplog.at_level(logging.WARNING, logger="medrecon"):
        samples = safe[1]
    assert samples.isfinite().all()
    assert samples[1, 4, 2:].tolist() == [0, 0]
    assert int((samples == 1).sum()) == 38
    assert "2 NaN or infinite samples in the k-space of slice 1 set to 0" in caplog.text
    assert stack[1].isnan().any()  # the data that were handed in stay as they are


@pytest.mark.parametrize("mode", ["error", "zero"])
def test_a_slice_without_any_energy_is_an_error(stack, mode):
    with pytest.raises(NumericalError, match="slice 2 is zero everywhere"):
        checked(stack, PATH, nonfinite=mode)[2]


def test_a_scan_is_checked_with_its_calibration(stack):
    geometry = Geometry.from_spacing((1, 1, 1), (3, 5, 4))
    scan = Scan(PATH, "test", stack, CartesianAcquisition(calibration=stack), geometry)
    safe = with_checks(scan, "error")
    for part, word in ((safe.measurements, "k-space"), (safe.acquisition.calibration, "calibration k-space")):
        assert part.shape == (2, 5, 4)
        with pytest.raises(NumericalError, match=f": {word} of slice 1"):
            part[1]
    assert safe.notes == ()
    assert "read as 0" in with_checks(scan, "zero").notes[-1]


def test_other_measurements_are_named_by_index():
    data = torch.ones(1, 3)
    data[0, 2] = float("nan")
    with pytest.raises(NumericalError, match=r"the first at index \(2,\)"):
        checked(SliceStack.from_tensor(data), PATH)[0]


def test_huge_and_tiny_samples_are_fine():
    for value in (3e38, 1e-44):
        data = torch.full((1, 2, 3, 4), value)
        assert torch.equal(checked(SliceStack.from_tensor(data), PATH)[0], data[0])
    whole = torch.ones(1, 4, dtype=torch.int16)
    assert torch.equal(checked(SliceStack.from_tensor(whole), PATH)[0], whole[0])
