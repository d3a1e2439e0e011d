"""Logarithms of intensities, and what is repaired on the way."""

import math

import pytest
import torch

from medrecon.errors import EmptyDataError, InputError, NumericalError, UsageError
from medrecon.operators.ct.prelog import PrelogReport, interpolate_bins, line_integrals


@pytest.fixture
def y():
    return torch.rand(11, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4


def test_fields_cancel(y):
    gain = torch.linspace(500, 900, 20).double()
    dark = torch.linspace(10, 20, 20).double()
    counts = dark + gain * torch.exp(-y)
    white = torch.stack([dark + 0.9 * gain, dark + 1.1 * gain])  # averaged
    result, report = line_integrals(counts, white=white, dark=torch.stack([dark, dark]))
    assert result.dtype == torch.float32
    assert torch.allclose(result.double(), y, atol=1e-5)
    assert report.notes() == []


def test_intensity_without_object(y):
    result, report = line_integrals(1e4 * torch.exp(-y), i0=1e4)
    assert torch.allclose(result.double(), y, atol=1e-5)
    assert report == PrelogReport(samples=220)


def test_no_photons_become_a_tenth(y):
    counts = 1e3 * torch.exp(-y)
    counts[3, 4], counts[0, 0] = 0, -2
    result, report = line_integrals(counts, i0=1e3)
    assert float(result[3, 4]) == pytest.approx(math.log(1e4))
    assert float(result[0, 0]) == pytest.approx(math.log(1e4))
    assert report.clamped == 2
    assert "2 of 220 samples had no photons" in report.notes()[0]


def test_no_photons_at_all(y):
    with pytest.raises(EmptyDataError, match="not a single sample"):
        line_integrals(torch.zeros_like(y), i0=1e3)


def test_dead_bins_are_interpolated(y):
    white = torch.full((20,), 100.0)
    counts = 100 * torch.exp(-y)
    white[7] = 0
    counts[:, 12] = math.nan
    counts[:, 0] = math.nan
    result, report = line_integrals(counts, white=white)
    assert report.dead == 3
    assert torch.allclose(result[:, 7].double(), (y[:, 6] + y[:, 8]) / 2, atol=1e-5)
    assert torch.allclose(result[:, 0].double(), y[:, 1], atol=1e-5)
    assert "3 detector bins" in report.notes()[0]


def test_single_bad_samples(y):
    counts = 100 * torch.exp(-y)
    counts[5, 9] = math.inf
    with pytest.raises(NumericalError, match=r"view 5, bin 9.*--nonfinite zero"):
        line_integrals(counts, i0=100)
    result, report = line_integrals(counts, i0=100, nonfinite="zero")
    assert float(result[5, 9]) == pytest.approx(float(y[5, 8] + y[5, 10]) / 2, abs=1e-5)
    assert report.nonfinite == 1
    assert report.notes()


def test_fields_exchanged(y):
    with pytest.raises(InputError, match="exchanged"):
        line_integrals(torch.exp(-y), white=torch.ones(20), dark=torch.full((20,), 5.0))


def test_brighter_than_the_beam_is_told(y):
    _, report = line_integrals(100 * torch.exp(y), i0=100)
    assert "brighter" in report.notes()[0]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, UsageError),
        ({"i0": 1.0, "white": torch.ones(20)}, UsageError),
        ({"i0": -1.0}, UsageError),
        ({"white": torch.ones(19)}, InputError),
        ({"white": torch.ones(20), "dark": torch.ones(2, 3, 20)}, InputError),
    ],
)
def test_errors(y, options, error):
    with pytest.raises(error):
        line_integrals(y, **options)


def test_interpolation_without_any_live_bin():
    assert torch.equal(interpolate_bins(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)), torch.zeros(2, 3))
