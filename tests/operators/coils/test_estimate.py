"""Estimates by name are those of the functions."""

import pytest
import torch

from medrecon.errors import InputError, NumericalError
from medrecon.operators.coils import (
    CalibrationRegion,
    espirit,
    estimate_maps,
    find_calibration_region,
    low_resolution_maps,
    walsh,
)

SHAPE = (49, 38)


@pytest.fixture(scope="module")
def sim(simulate):
    return simulate(5, SHAPE)


@pytest.fixture(scope="module")
def calibration(sim):
    return find_calibration_region(sim.kspace).extract(sim.kspace)


def test_each_name_is_its_function(calibration):
    close = torch.testing.assert_close
    close(estimate_maps(calibration, SHAPE, "walsh"), walsh(calibration, SHAPE))
    close(estimate_maps(calibration, SHAPE, "low-resolution"), low_resolution_maps(calibration, SHAPE))
    close(estimate_maps(calibration, SHAPE, "espirit"), espirit(calibration, SHAPE, kernel_size=6, num_sets=1).maps)
    close(
        estimate_maps(calibration, SHAPE, "espirit", num_sets=2),
        espirit(calibration, SHAPE, kernel_size=6, num_sets=2).maps,
    )
    assert estimate_maps(calibration, SHAPE, "espirit", num_sets=2).shape == (2, 5, *SHAPE)


@pytest.mark.parametrize("method", ["espirit", "walsh", "low-resolution"])
def test_finds_the_simulated_maps(sim, calibration, method):
    maps = estimate_maps(calibration, SHAPE, method)
    assert maps.shape == (1, 5, *SHAPE)
    agreement = (maps[0].conj() * sim.maps).sum(0).abs()[sim.support]
    assert float(agreement.mean()) > 0.99


@pytest.mark.parametrize(("side", "kernel"), [(11, 5), (7, 3), (4, 2)])
def test_small_regions_get_smaller_kernels(sim, side, kernel):
    start = tuple(size // 2 - side // 2 for size in SHAPE)
    small = CalibrationRegion(start, (start[0] + side, start[1] + side)).extract(sim.kspace)
    maps = estimate_maps(small, SHAPE, "espirit")
    torch.testing.assert_close(maps, espirit(small, SHAPE, kernel_size=kernel, num_sets=1).maps)
    with pytest.raises(InputError, match="smaller than the window"):
        espirit(small, SHAPE, kernel_size=side + 1)


@pytest.mark.parametrize("method", ["walsh", "low-resolution"])
def test_two_sets_are_for_espirit_only(calibration, method):
    maps = estimate_maps(calibration, SHAPE, method, num_sets=2)
    torch.testing.assert_close(maps, estimate_maps(calibration, SHAPE, method))


@pytest.mark.parametrize("method", ["espirit", "walsh", "low-resolution"])
def test_errors_come_through(calibration, method):
    with pytest.raises(NumericalError, match="zero everywhere"):
        estimate_maps(torch.zeros_like(calibration), SHAPE, method)
    with pytest.raises(InputError, match="expected the complex calibration region"):
        estimate_maps(calibration.real, SHAPE, method)
