"""Photons have the mean and the variance of a Poisson process."""

import math

import pytest
import torch

from medrecon.errors import NumericalError, UsageError
from medrecon.simulation.photons import photon_counts


def draw(y, seed=0, **options):
    return photon_counts(y, generator=torch.Generator().manual_seed(seed), **options)


def test_statistics():
    y = torch.full((400, 500), 1.5)
    mean = 200 * math.exp(-1.5)
    drawn = draw(y, counts=200)
    spread = math.sqrt(mean / y.numel())
    assert float(drawn.mean()) == pytest.approx(mean, abs=5 * spread)
    assert float(drawn.var()) == pytest.approx(mean, rel=0.02)
    assert torch.equal(drawn, drawn.round())


def test_electronic_noise_adds_its_variance():
    drawn = draw(torch.full((400, 500), 2.0), counts=100, electronic_noise=7.0)
    assert float(drawn.var()) == pytest.approx(100 * math.exp(-2) + 49, rel=0.02)
    assert float(drawn.min()) < 0


def test_seed():
    y = torch.rand(5, 6)
    assert torch.equal(draw(y, counts=1e3), draw(y, counts=1e3))
    assert not torch.equal(draw(y, counts=1e3), draw(y, 1, counts=1e3))


@pytest.mark.parametrize(
    "options", [{"counts": 0}, {"counts": -5}, {"counts": math.inf}, {"counts": 5, "electronic_noise": -1}]
)
def test_options(options):
    with pytest.raises(UsageError, match="photons"):
        draw(torch.zeros(2), **options)


def test_values_that_are_no_line_integrals():
    with pytest.raises(UsageError, match="less than one photon"):
        draw(torch.full((4, 4), 300.0), counts=1e4)
    with pytest.raises(NumericalError, match="NaN"):
        draw(torch.tensor([math.nan]), counts=1e4)
