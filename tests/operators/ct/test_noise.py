"""Weights of rays, against the photons that were counted."""

import math

import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.operators import LinearOperator, ParallelBeam2D
from medrecon.operators.composition import Weighted
from medrecon.operators.ct.noise import MODEL_ERROR, ray_weights
from medrecon.reconstructors import make_method
from medrecon.simulation.photons import photon_counts

VIEWS, SIZE = 45, 96


def body(size=SIZE):
    """An ellipse as wide as a chest in 1/mm, two lungs and a spine, over 400 mm."""
    y, x = torch.meshgrid(torch.linspace(1, -1, size), torch.linspace(-1, 1, size), indexing="ij")
    image = 0.02 * ((x / 0.85) ** 2 + (y / 0.55) ** 2 < 1)
    for side in (-1, 1):
        image = torch.where(((x - side * 0.4) / 0.25) ** 2 + (y / 0.38) ** 2 < 1, 0.005, image)
    return torch.where(x**2 + (y + 0.35) ** 2 < 0.1**2, 0.035, image).float()[None, None]


def beams(**geometry):
    return ParallelBeam2D((SIZE, SIZE), torch.arange(VIEWS) * math.pi / VIEWS, pixel_size=400 / SIZE, **geometry)


def measured(operator, counts, image=None, seed=0):
    lines = operator(body() if image is None else image)
    photons = photon_counts(lines, counts=counts, generator=torch.Generator().manual_seed(seed))
    return lines, -torch.log(photons.clamp_min(0.1) / counts)


@pytest.mark.parametrize("counts", [3e3, 1e4, 1e5])
def test_weights_follow_the_photons(counts):
    lines, y = measured(beams(), counts)
    expected = (1 + lines.exp() / counts / (MODEL_ERROR * y.abs().max()) ** 2).rsqrt()
    error = (ray_weights(y) / expected).log()
    assert abs(float(error.median())) < 0.15
    assert float(error.abs().quantile(0.9)) < 0.3
    assert float(expected.min()) < 0.6  # or there was nothing to find


def test_noise_that_is_the_same_everywhere_needs_no_weights():
    operator = beams()
    lines = operator(body())
    assert ray_weights(lines) is None
    assert ray_weights(lines * 1000) is None  # in a unit of its own: e^p says nothing there
    noise = torch.randn(lines.shape, generator=torch.Generator().manual_seed(0))
    assert ray_weights(lines / lines.max() + 0.002 * noise) is None
    assert ray_weights(torch.zeros(1, 1, 4, 9)) is None
    y, same = operator.whitened(lines)
    assert same is operator
    assert y is lines


def test_samples_of_a_batch_have_weights_of_their_own():
    operator = beams()
    few, many = measured(operator, 1e4)[1], measured(operator, 1e6, seed=1)[1]
    both = ray_weights(torch.cat([few, many, few]))
    torch.testing.assert_close(both[:1], ray_weights(few))
    torch.testing.assert_close(both[2:], both[:1])
    assert float(both[1].mean()) > float(both[0].mean())
    clean = operator(body())
    mixed = torch.cat([few, clean])
    assert bool((ray_weights(mixed)[1] == 1).all())
    together, alone = make_method("tv", {"max_iter": 5})(mixed, operator), make_method("tv", {"max_iter": 5})
    torch.testing.assert_close(together[1:], alone(clean, operator), atol=1e-4, rtol=0)  # another bound of the norm
    torch.testing.assert_close(together[:1], alone(few, operator), atol=1e-6, rtol=1e-3)


def test_slices_that_share_an_operator_have_no_weights():
    operator = beams()
    three = ParallelBeam2D((3, SIZE, SIZE), operator.angles[0], pixel_size=400 / SIZE)
    y = measured(operator, 1e4)[1].expand(1, 3, -1, -1)
    assert three.whitened(y)[1] is three


def test_what_has_no_neighbours_or_no_value_is_left_alone():
    assert ray_weights(torch.rand(2, 1, 5, 2)) is None
    assert ray_weights(torch.full((1, 1, 3, 8), float("nan"))) is None
    assert ray_weights(torch.rand(1, 1, 2, 5)) is None  # too few rays to tell


@pytest.mark.parametrize("change", [lambda a: a, lambda a: 3.0 * a, lambda a: a @ (2.0 * _identity())])
def test_whitened_operators_weigh_their_measurements(change):
    operator = change(beams())
    x = body()
    _, y = measured(beams(), 1e4)
    weighted, whitened = operator.whitened(y)
    weights = ray_weights(y)
    torch.testing.assert_close(weighted, weights * y)
    torch.testing.assert_close(whitened(x), weights * operator(x))
    torch.testing.assert_close(whitened.adjoint(y), operator.adjoint(weights * y))
    assert float(whitened.norm_bound()) >= float(whitened.norm()) * 0.999


def test_filtered_backprojection_starts_without_weights():
    operator = beams()
    _, y = measured(operator, 1e4)
    weighted, whitened = operator.whitened(y)
    torch.testing.assert_close(whitened.initial(weighted), operator.initial(y), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["tv", "l1-wavelet"])
def test_streaks_of_starved_rays_go_away(name, monkeypatch):
    operator = beams()
    _, y = measured(operator, 3e3)

    def error():
        return float((make_method(name)(y, operator) - body()).square().mean().sqrt())

    weighted = error()
    monkeypatch.setattr(type(operator), "whitened", LinearOperator.whitened)
    assert weighted < 0.8 * error()


def test_models_see_the_weighted_problem():
    operator = beams()
    _, y = measured(operator, 1e4)
    weights = ray_weights(y)
    model = InvertibleDiffusionModel.from_preset("tiny", steps=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(y, operator), model(weights * y, Weighted(operator, weights)))


def _identity():
    from medrecon.operators import Inpainting

    return Inpainting(torch.ones(1, SIZE, SIZE, dtype=torch.bool))
