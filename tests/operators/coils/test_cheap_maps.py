"""The two cheap estimates share their contract, so they share their tests."""

import pytest
import torch

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.operators.coils import find_calibration_region, low_resolution_maps, walsh

METHODS = [low_resolution_maps, walsh]


def calibrate(kspace):
    return find_calibration_region(kspace).extract(kspace)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(("coils", "shape"), [(2, (64, 64)), (8, (97, 75)), (16, (97, 75))])
def test_finds_the_simulated_maps(simulate, method, dtype, coils, shape):
    sim = simulate(coils, shape, dtype=dtype)
    maps = method(calibrate(sim.kspace), shape)
    assert maps.shape == (1, coils, *shape)
    assert maps.dtype == dtype
    agreement = (maps[0].conj() * sim.maps).sum(0).abs()[sim.support]
    assert float(agreement.mean()) > 0.995
    norm = torch.linalg.vector_norm(maps, dim=1)
    torch.testing.assert_close(norm, torch.ones_like(norm))


@pytest.mark.parametrize("method", METHODS)
def test_crop_masks_the_background(simulate, method):
    sim = simulate(8, (97, 75))
    maps = method(calibrate(sim.kspace), (97, 75), crop=0.1)[0]
    norm = torch.linalg.vector_norm(maps, dim=0)
    assert float((norm[sim.support] > 0).float().mean()) > 0.97
    assert float((norm[~sim.support] == 0).float().mean()) > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_one_coil_is_ones(simulate, method):
    maps = method(calibrate(simulate(1, (32, 33)).kspace), (32, 33))
    torch.testing.assert_close(maps, torch.ones_like(maps))


@pytest.mark.parametrize("method", METHODS)
def test_bad_input(simulate, method):
    calibration = calibrate(simulate(2, (32, 32)).kspace)
    with pytest.raises(InputError, match="larger than the image"):
        method(calibration, (16, 32))
    with pytest.raises(InputError, match="expected the complex"):
        method(calibration.real, (32, 32))
    with pytest.raises(NumericalError, match="zero everywhere"):
        method(torch.zeros_like(calibration), (32, 32))
    with pytest.raises(UsageError, match="crop"):
        method(calibration, (32, 32), crop=1.0)
    with pytest.raises(UsageError, match="image_shape"):
        method(calibration, (32, 0))


def test_walsh_is_the_eigenvector_of_the_local_covariance(simulate):
    sim = simulate(4, (40, 37), dtype=torch.complex128)
    calibration = sim.kspace[:, 8:32, 6:30]
    window = torch.sin(torch.pi * (torch.arange(24, dtype=torch.float64) + 0.5) / 24).square()
    padded = torch.zeros_like(sim.kspace)
    padded[:, 8:32, 6:30] = calibration * window[:, None] * window
    images = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(-2, -1))), dim=(-2, -1))
    maps = walsh(calibration, (40, 37), window=3)[0]
    for row, column in ((0, 0), (20, 18), (39, 10), (13, 36)):
        near = images.roll((1 - row, 1 - column), dims=(1, 2))[:, :3, :3].flatten(1)  # wraps around
        exact = torch.linalg.eigh(near @ near.mH)[1][:, -1]
        assert float((exact.conj() * maps[:, row, column]).sum().abs()) > 1 - 1e-9


def test_walsh_window_must_be_odd(simulate):
    with pytest.raises(UsageError, match="odd"):
        walsh(calibrate(simulate(2, (32, 32)).kspace), (32, 32), window=4)
