"""The ramp against its closed forms."""

import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators.ct.filters import WINDOWS, filter_sinogram, ramp_filter


@pytest.mark.parametrize("pitch", [0.5, 1.0, 2.0])
def test_ramp_is_near_the_frequency_and_not_zero_at_zero(pitch):
    response = ramp_filter(512, pitch)
    frequency = torch.arange(257, dtype=torch.float64) / 512 / pitch
    assert torch.allclose(response[20:], frequency[20:], atol=1e-3 / pitch)
    assert 0 < float(response[0]) < 2e-3 / pitch  # sampling |f| would give 0, and images without mean


@pytest.mark.parametrize(
    ("window", "at_nyquist"),
    [("ram-lak", 1), ("shepp-logan", 2 / math.pi), ("cosine", 0), ("hamming", 0.08), ("hann", 0)],
)
def test_windows(window, at_nyquist):
    gain = ramp_filter(256, 1.0, window) / ramp_filter(256, 1.0)
    assert float(gain[0]) == pytest.approx(1)
    assert float(gain[-1]) == pytest.approx(at_nyquist, abs=1e-9)
    assert bool((gain.diff() <= 1e-12).all())


def test_filtering_is_the_convolution_with_the_kernel():
    y = torch.randn(3, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    n = torch.arange(21)[:, None] - torch.arange(21)
    odd = n % 2 == 1
    kernel = torch.where(odd, -1 / (math.pi * torch.where(odd, n, 1) * 0.7).double() ** 2, 0.0)
    kernel += torch.eye(21) / (4 * 0.7**2)
    assert torch.allclose(filter_sinogram(y, 0.7), y @ kernel.T * 0.7, atol=1e-12)


def test_equiangular_kernel():
    y = torch.randn(2, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    n = torch.arange(15)[:, None] - torch.arange(15)
    odd = n % 2 == 1
    gamma = torch.where(odd, n, 1).double() * 0.05
    kernel = torch.where(odd, -1 / (math.pi * torch.where(odd, n, 1)).double() ** 2 * (gamma / gamma.sin()) ** 2, 0.0)
    kernel += torch.eye(15) / 4
    assert torch.allclose(filter_sinogram(y, 1.0, fan_angle=0.05), y @ kernel.T, atol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_oversampling_keeps_the_bins(window):
    y = torch.randn(2, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fine = filter_sinogram(y, 1.0, window, oversampling=3)
    assert fine.shape == (2, 99)
    # the highest frequency of an even length is shared between two places when it is interpolated
    assert torch.allclose(fine[:, ::3], filter_sinogram(y, 1.0, window), atol=0.02 * float(y.abs().max()))


def test_unknown_window():
    with pytest.raises(UsageError, match="expected one of ram-lak"):
        ramp_filter(8, 1.0, "hanning")
