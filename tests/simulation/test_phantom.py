"""Phantoms: antialiased ellipses of the right area."""

import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.simulation import brain_phantom, shepp_logan
from medrecon.simulation.phantom import Ellipse, coverage


@pytest.mark.parametrize("angle", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(64, 64), (90, 61)])
def test_coverage_has_the_area_of_the_ellipse(shape, angle):
    area = float(coverage(Ellipse(1, 0.5, 0.3, 0.1, -0.2, angle), shape).mean()) * 4
    assert area == pytest.approx(math.pi * 0.5 * 0.3, rel=5e-3)


def test_shepp_logan():
    image = shepp_logan((128, 128))
    assert image.shape == (1, 128, 128)
    assert image.dtype == torch.float32
    assert image.amax() == 1
    assert image[0, 0, 0] == 0
    assert image[0, 80, 64] == pytest.approx(0.2, abs=1e-6)  # brain
    assert image[0, 64, 64 + 14] == pytest.approx(0.0, abs=1e-6)  # right ventricle


def test_brains():
    first, second = (brain_phantom(3, (80, 64), torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert first.shape == (3, 80, 64)
    assert torch.equal(first, second)
    assert not torch.allclose(first[0], first[1])
    assert first.amin() >= 0
    assert first.amax() <= 1
    assert (first.amax((1, 2)) > 0.5).all()
    assert (first[:, 0] == 0).all()
    assert brain_phantom(0, (8, 8), torch.Generator()).shape == (0, 8, 8)


def test_wrong_shape():
    with pytest.raises(UsageError, match="plane"):
        shepp_logan((0, 4))
