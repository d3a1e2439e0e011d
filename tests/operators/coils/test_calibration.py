import re

import pytest
import torch

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.operators.coils import CalibrationRegion, find_calibration_region


@pytest.fixture(scope="module")
def kspace(simulate):
    return simulate(4, (96, 80)).kspace


@pytest.fixture(scope="module")
def peaked():
    """K-space whose energy peaks exactly at N//2."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 96, 80, dtype=torch.complex64, generator=random)
    noise[:, 48, 40] = 100
    return noise


def check_sampled(region, pattern):
    assert bool(region.extract(pattern.expand(96, 80)).all())


def test_full_sampling_gives_the_centred_square(peaked):
    region = find_calibration_region(peaked)
    assert region == CalibrationRegion((36, 28), (60, 52))
    assert region.shape == (24, 24)
    assert region.extract(peaked).shape == (4, 24, 24)


def test_region_follows_a_shifted_echo(peaked):
    assert find_calibration_region(peaked.roll((2, -1), dims=(1, 2))).start == (38, 27)


def test_a_peak_far_off_the_centre_is_not_followed(peaked):
    spiked = peaked.clone()
    spiked[:, 5, 5] = 1e4
    assert find_calibration_region(spiked) == find_calibration_region(peaked)


@pytest.mark.parametrize("from_mask", [False, True])
def test_lines_along_the_phase_axis(peaked, from_mask):
    mask = torch.zeros(1, 80, dtype=torch.bool)
    mask[:, ::3] = True
    mask[:, 31:49] = True  # line 30 is on the grid of every third
    data = peaked if from_mask else peaked * mask
    region = find_calibration_region(data, mask if from_mask else None)
    assert (region.start[1], region.stop[1]) == (30, 49)
    assert region.shape == (24, 19)


def test_poisson_disc_with_a_round_centre(peaked):
    y, x = torch.arange(96)[:, None] - 48, torch.arange(80)[None] - 40
    random = torch.Generator().manual_seed(0)
    mask = (torch.rand(96, 80, generator=random) < 0.2) | (y**2 + x**2 <= 100)
    region = find_calibration_region(peaked * mask)
    check_sampled(region, mask)
    assert min(region.shape) >= 13
    assert region == find_calibration_region(peaked, mask)


def test_partial_fourier_gives_an_asymmetric_region(peaked):
    data = peaked.clone()
    data[:, :42] = 0
    region = find_calibration_region(data)
    assert (region.start[0], region.stop[0]) == (42, 66)


def test_zero_padded_borders_are_excluded_even_where_the_mask_includes_them(peaked):
    data = torch.zeros_like(peaked)
    data[:, 40:56, 32:46] = peaked[:, 40:56, 32:46]
    for mask in (None, torch.ones(96, 80)):
        assert find_calibration_region(data, mask) == CalibrationRegion((40, 32), (56, 46))


def test_sizes_per_axis(peaked):
    assert find_calibration_region(peaked, max_size=(30, 16)).shape == (30, 16)
    assert find_calibration_region(peaked, max_size=200).shape == (96, 80)
    lines = torch.zeros(80)
    lines[36:44] = 1
    assert find_calibration_region(peaked * lines, min_size=(12, 6)).shape == (24, 8)


def test_odd_sizes(simulate):
    region = find_calibration_region(simulate(2, (97, 75)).kspace)
    assert region.shape == (24, 24)
    assert abs(region.start[0] + 12 - 48) <= 4


def test_too_small_says_what_was_found_and_what_to_do(peaked):
    mask = torch.zeros(96, 80)
    mask[47:49, 38:42] = 1
    message = "no fully sampled calibration region found (centre is 2x4 samples; coil calibration needs at least 12x12"
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        find_calibration_region(peaked * mask)
    assert "--maps FILE" in str(raised.value)


def test_unsampled_centre(peaked):
    mask = torch.ones(96, 80)
    mask[40:60, 30:50] = 0
    with pytest.raises(InputError, match="0x0 samples"):
        find_calibration_region(peaked, mask)


def test_bad_input(kspace):
    with pytest.raises(InputError, match="expected the complex k-space of one slice"):
        find_calibration_region(kspace.real)
    with pytest.raises(InputError, match="does not broadcast"):
        find_calibration_region(kspace, torch.ones(3, 3))
    with pytest.raises(NumericalError, match="zero everywhere"):
        find_calibration_region(torch.zeros_like(kspace))
    broken = kspace.clone()
    broken[0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match="NaN or Inf"):
        find_calibration_region(broken)
    with pytest.raises(UsageError, match="min_size"):
        find_calibration_region(kspace, max_size=8)
    with pytest.raises(UsageError, match="positive"):
        find_calibration_region(kspace, min_size=0)
