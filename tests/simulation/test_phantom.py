"""Phantoms: antialiased ellipses of the right area."""

import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.simulation import brain_phantom, shepp_logan
from medrecon.simulation.phantom import Ellipse, coverage, random_ellipses


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


@pytest.mark.parametrize("shape", [(61, 90), (64, 64), (33, 17)])
def test_random_ellipses(shape):
    slices = random_ellipses(4, shape, torch.Generator().manual_seed(0))
    assert slices.shape == (4, *shape)
    assert slices.dtype == torch.float32
    assert slices.amin() >= 0
    assert slices.amax() <= 1
    y, x = (((torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1) for n in shape)
    radius = (y[:, None].square() + x.square()).sqrt()
    assert (slices[:, radius > 0.85 + 2 / min(shape)] == 0).all()  # air around a large ellipse
    inside = slices[:, radius < 0.85 - 2 / min(shape)]
    assert 0.3 < inside.mean() < 0.7  # 0.5 and parts of either sign
    assert (inside.std(1) > 0.02).all()


def test_random_ellipses_repeat_and_differ():
    def draw(count, seed):
        return random_ellipses(count, (40, 31), torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3, 1), draw(3, 1))
    assert torch.equal(draw(3, 1)[:2], draw(2, 1))
    assert not torch.allclose(draw(3, 1), draw(3, 2))
    first, second = draw(2, 3)
    assert not torch.allclose(first, second)
    assert draw(0, 0).shape == (0, 40, 31)


def test_random_ellipses_of_either_sign():
    """Parts darker and brighter than the body of 0.5."""
    slices = random_ellipses(20, (48, 48), torch.Generator().manual_seed(0))[:, 10:38, 10:38]
    assert (slices < 0.3).float().mean() > 0.05
    assert (slices > 0.7).float().mean() > 0.05


@pytest.mark.parametrize("shape", [(0, 4), (4, -1), (8,), (2, 3, 4)])
def test_random_ellipses_fill_a_plane(shape):
    with pytest.raises(UsageError, match="a phantom fills a plane"):
        random_ellipses(2, shape, torch.Generator())
