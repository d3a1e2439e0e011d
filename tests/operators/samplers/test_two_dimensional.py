"""Variable density, Poisson disc and radial masks: exact acceleration, sampled centre, geometry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medrecon.errors import UsageError
from medrecon.operators.samplers import (
    PoissonDisc,
    RadialSpokes,
    VariableDensityLines,
    VariableDensityPoints,
    effective_acceleration,
)
from medrecon.operators.samplers.density import normalised_radius

SAMPLERS = [
    VariableDensityLines(4, 0.06),
    VariableDensityLines(4, 0.06, density="gaussian", steepness=3),
    VariableDensityPoints(8),
    VariableDensityPoints(3, density="gaussian", elliptical=True),
    PoissonDisc(8),
    PoissonDisc(4, growth=0, elliptical=False),
    RadialSpokes(8),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@settings(max_examples=12, deadline=None)
@given(height=st.integers(24, 90), width=st.integers(24, 90), seed=st.integers(0, 2**40))
def test_any_size(sampler, height, width, seed):
    mask = sampler.draw((height, width), seeded(seed))
    lines = isinstance(sampler, VariableDensityLines)
    assert mask.shape == ((1, width) if lines else (height, width))
    assert mask.dtype == torch.bool
    assert mask[0 if lines else height // 2, width // 2]
    assert int(mask.sum()) == round(mask.numel() / sampler.acceleration)
    assert torch.equal(mask, sampler.draw((height, width), seeded(seed)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_other_seed_other_mask(sampler):
    assert not torch.equal(sampler.draw((64, 64), seeded(0)), sampler.draw((64, 64), seeded(1)))


@pytest.mark.parametrize("sampler", [VariableDensityPoints(8, 0.1), PoissonDisc(8, 0.1)], ids=repr)
def test_calibration_region_is_full(sampler):
    mask = sampler.draw((61, 80), seeded())
    assert mask[28:34, 36:44].all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_density_falls_outwards_unless_uniform(sampler):
    shape = (96, 96)
    masks = sum(sampler.draw(shape, seeded(seed)).expand(shape).double() for seed in range(8)) / 8
    radius = normalised_radius((96,))[None] if isinstance(sampler, VariableDensityLines) else normalised_radius(shape)
    radius = radius.expand(shape)
    inner = masks[(radius > 0.25) & (radius < 0.4)].mean()
    outer = masks[(radius > 0.75) & (radius < 0.95)].mean()
    if getattr(sampler, "growth", 1) == 0:
        assert float(inner) == pytest.approx(float(outer), rel=0.1)
    else:
        assert inner > 1.3 * outer > 0


@pytest.mark.parametrize(
    "sampler", [PoissonDisc(6), VariableDensityPoints(6, elliptical=True), RadialSpokes(6)], ids=repr
)
def test_elliptical_support(sampler):
    mask = sampler.draw((60, 72), seeded())
    # rounding to the grid may step half a sample over the ellipse
    assert not mask[normalised_radius((60, 72)) > 1 + 1 / 30].any()


def test_poisson_disc_keeps_distances():
    mask = PoissonDisc(12, center_fraction=0, growth=1.5, elliptical=False).draw((120, 120), seeded())
    points = mask.nonzero().double()
    distance = torch.cdist(points, points) + 1e9 * torch.eye(len(points), dtype=torch.float64)
    nearest = distance.amin(1)
    radius = normalised_radius((120, 120))[mask]
    # acceleration 12 with random points: one in five would have a direct neighbour
    assert (nearest[radius > 0.5] <= 1).double().mean() == 0
    # no holes either: far out every position has a sample within a few typical distances
    grid = torch.cartesian_prod(torch.arange(120.0), torch.arange(120.0)).double()
    assert torch.cdist(grid, points).amin(1).max() < 3 * nearest[radius > 1].median()


def test_uniform_poisson_disc_at_its_own_density():
    mask = PoissonDisc(9, center_fraction=0, growth=0, elliptical=False).draw((90, 90), seeded())
    points = mask.nonzero().double()
    distance = torch.cdist(points, points) + 1e9 * torch.eye(len(points), dtype=torch.float64)
    assert distance.min() >= 2


def test_full_radial_spoke_is_connected_through_the_centre():
    mask = RadialSpokes(20).draw((63, 63), seeded(3))
    assert mask[31, 31]
    assert mask[30:33, 30:33].sum() >= 5


def test_steepness_zero_is_uniform():
    sampler = VariableDensityPoints(2, center_fraction=0, steepness=0)
    mean = sum(sampler.draw((32, 32), seeded(seed)).double() for seed in range(200)) / 200
    assert float(mean.std()) < 0.05
    assert abs(float(mean[16, 16]) - 0.5) < 0.15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariableDensityLines(8, 0.2), "lower center_fraction"),
        (lambda: VariableDensityPoints(8, 0.4), "lower center_fraction"),
        (lambda: VariableDensityPoints(8, density="flat"), "density must be one of polynomial, gaussian"),
        (lambda: VariableDensityPoints(8, steepness=-1), "steepness"),
        (lambda: PoissonDisc(8, growth=-1), "growth"),
        (lambda: PoissonDisc(8, elliptical=1), "elliptical must be true or false"),
        (lambda: PoissonDisc(0.9), "acceleration must be"),
        (lambda: RadialSpokes(1.2), "acceleration must be"),
        (lambda: PoissonDisc(1.1).draw((32, 32), seeded()), "set elliptical to false"),
        (lambda: VariableDensityPoints(1.1, elliptical=True).draw((32, 32), seeded()), "raise acceleration"),
        (lambda: RadialSpokes(1.5).draw((4, 4), seeded()), "raise acceleration"),
        (lambda: RadialSpokes(8).draw((4,), seeded()), "plane"),
    ],
)
def test_errors(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_effective_acceleration():
    assert effective_acceleration(torch.tensor([True, False, False])) == 3
    assert effective_acceleration(torch.zeros(4, dtype=torch.bool)) == float("inf")
