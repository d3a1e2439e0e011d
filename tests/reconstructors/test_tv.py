import math

import pytest
import torch

from medrecon.metrics import psnr
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, intensity_scale
from medrecon.optimization.proximal_gradient import Continuation, roughness
from medrecon.optimization.tv_prox import TotalVariationProx
from medrecon.reconstructors import Tikhonov, TotalVariation
from medrecon.simulation import brain_phantom


def differences(x):
    """Forward differences along the spatial axes of (B, C, *spatial), zero at the end."""
    return torch.stack([torch.diff(x, dim=axis, append=x.narrow(axis, -1, 1)) for axis in range(2, x.ndim)])


def variation(x):
    return differences(x).abs().square().sum(0).sqrt().sum().double()


def objective(x, operator, data, weight):
    return float(0.5 * (operator(x) - data).abs().square().sum().double() + weight * variation(x))


def condat_vu(operator, data, weight, iterations):
    """An independent minimiser (norm of the operator at most 1): slow, without acceleration, but sure."""
    tau = 1.5
    axes = len(operator.image_shape) - 1
    sigma = (1 / tau - 0.5) / (4 * axes)
    b = operator.adjoint(data)
    x = b.clone()
    u = torch.zeros_like(differences(x))
    for _ in range(iterations):
        back = torch.zeros_like(x)
        for part, axis in zip(u, range(2, x.ndim), strict=True):
            inside = part.narrow(axis, 0, x.shape[axis] - 1)
            back.narrow(axis, 0, x.shape[axis] - 1).sub_(inside)
            back.narrow(axis, 1, x.shape[axis] - 1).add_(inside)
        new = x - tau * (operator.gram(x) - b + back)
        u = u + sigma * differences(2 * new - x)
        u = u / (u.abs().square().sum(0).sqrt() / weight).clamp_min(1)
        x = new
    return x


@pytest.fixture(scope="module")
def reference(brain):
    weight = 0.01 * float(intensity_scale(brain.operator, brain.data))
    return weight, condat_vu(brain.operator, brain.data, weight, 1500)


def test_reaches_the_minimum(brain, reference):
    weight, best = reference
    lowest = objective(best, brain.operator, brain.data, weight)
    excess = {}
    for iterations in (20, 50, 200):
        image = TotalVariation(0.01, iterations, 0)(brain.data, brain.operator)
        excess[iterations] = objective(image, brain.operator, brain.data, weight) / lowest - 1
    assert excess[50] < 2e-3
    assert excess[200] < 2e-4
    assert excess[200] > -1e-4  # the reference is the minimum
    assert excess[20] > excess[200]


def test_default_tolerance_is_near_the_minimum(brain, reference):
    weight, best = reference
    image = TotalVariation(0.01)(brain.data, brain.operator)
    assert float((image - best).norm() / best.norm()) < 0.02
    assert objective(image, brain.operator, brain.data, weight) < 1.005 * objective(
        best, brain.operator, brain.data, weight
    )


@pytest.mark.parametrize("norm", [0.1, 100.0])
def test_reaches_the_minimum_whatever_the_norm(brain, reference, norm):
    weight, best = reference
    image = TotalVariation(0.01, 100, 0)(brain.data * norm, brain.operator * norm)
    assert objective(image, brain.operator, brain.data, weight) < 1.001 * objective(
        best, brain.operator, brain.data, weight
    )


def test_volume_reaches_the_minimum(make):
    volume = torch.stack([make.phantom(20, 16) * (1 - abs(z - 3) / 4) for z in range(7)])[None, None]
    operator = CartesianMRI(make.line_mask(16, 2, 4), image_shape=(7, 20, 16), spatial_dims=3)
    data = operator(volume)
    weight = 0.02 * float(intensity_scale(operator, data))
    best = condat_vu(operator, data, weight, 600)
    image = TotalVariation(0.02, 150, 0)(data, operator)
    assert objective(image, operator, data, weight) < 1.001 * objective(best, operator, data, weight)


def test_stops_early(brain):
    calls = []
    TotalVariation(0.01, 500, 1e-2)(brain.data, brain.operator, progress=lambda done, _: calls.append(done))
    assert len(calls) < 40


def test_prox_solves_its_problem():
    v = torch.randn(2, 2, 1, 12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    prox = TotalVariationProx(v)
    for _ in range(10):
        x = prox(v, 500, torch.tensor([0.4, 0.4]))
    image, target = torch.complex(x[:, 0], x[:, 1]), torch.complex(v[:, 0], v[:, 1])

    def value(z):
        return float(0.5 * (z - target).abs().square().sum() + 0.4 * variation(z))

    generator = torch.Generator().manual_seed(4)
    for size in (1e-1, 1e-2, 1e-3):
        step = size * torch.randn(image.shape, dtype=image.dtype, generator=generator)
        assert value(image) <= value(image + step)
        assert value(image) <= value(image * (1 - size))
    # the mean of every plane is free of charge, and the known limit of a large weight
    assert torch.allclose(image.mean((2, 3)), target.mean((2, 3)))
    prox = TotalVariationProx(v)
    for _ in range(20):
        x = prox(v, 500, torch.tensor([1e3]))
    assert torch.allclose(x, v.mean((3, 4), keepdim=True).expand_as(x), atol=1e-6)


def test_borders_are_not_neighbours():
    operator = Inpainting(torch.ones(1, 8, 32, dtype=torch.bool))
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 8, 32).contiguous()
    image = TotalVariation(0.01, 200, 0)(ramp, operator)
    # a ramp loses contrast at its two ends, by the weight over the pixels there, and is not closed to a ring
    assert float((image - ramp).abs().max()) < 0.15
    assert float(image[0, 0, 0, -1] - image[0, 0, 0, 0]) > 0.8


def test_more_is_smoother(brain):
    images = [TotalVariation(weight)(brain.data, brain.operator) for weight in (0, 0.003, 0.03)]
    smoothness = [float(variation(image)) for image in images]
    assert smoothness[0] > smoothness[1] > smoothness[2]


def test_better_than_least_squares(brain):
    def error(method):
        return float((method(brain.data, brain.operator) - brain.image).norm())

    assert error(TotalVariation()) < 0.6 * error(Tikhonov())


@pytest.mark.parametrize(("weight", "iterations"), [(0.003, 50), (0.0003, 150), (0.5, 50), (0.0, 50), (0.01, 1)])
def test_weight_falls_to_what_was_asked_for(weight, iterations):
    first = torch.tensor([0.1, 1.0])
    method = Continuation(first, weight, iterations)
    weights = torch.stack([method.weight(iteration) for iteration in range(iterations)])
    assert (weights.diff(dim=0) <= 0).all()
    assert iterations == 1 or weights[-1].tolist() == pytest.approx([weight, weight])
    assert iterations == 1 or method.over(iterations - 1).all()
    assert weights[0].tolist() == pytest.approx((first.clamp_min(weight) if weight > 0 else 0 * first).tolist())
    alone = Continuation(first[1:], weight, iterations)
    assert torch.equal(torch.stack([alone.weight(iteration) for iteration in range(iterations)]), weights[:, 1:])


def test_roughness():
    """That of complex noise of standard deviation 1 per part: the mean magnitude of its differences, √π an axis."""
    noise = torch.randn(1, 2, 1, 300, 300, generator=torch.Generator().manual_seed(0))
    assert float(roughness(noise)) == pytest.approx(2 * math.pi**0.5, rel=0.01)
    ramp = torch.arange(8.0).expand(1, 1, 1, 5, 8)
    assert roughness(torch.cat([ramp, 3 * ramp])).tolist() == [1, 3]
    assert roughness(ramp[..., :1, :1]).tolist() == [0]


def test_scattered_measurements_need_a_larger_first_weight(monkeypatch):
    """A^H y looks like noise then, which a weight of 0.1 leaves where it is."""
    truth = brain_phantom(1, (128, 160), torch.Generator().manual_seed(0))[:, None]
    operator = BlockCompressedSensing((1, 128, 160), 0.1)
    both = operator(torch.cat([truth, truth.flip(-1)]))
    images = TotalVariation()(both, operator)
    assert torch.allclose(images[:1], TotalVariation()(both[:1], operator), atol=1e-5)
    monkeypatch.setattr("medrecon.optimization.proximal_gradient.roughness", lambda planes: torch.zeros(len(planes)))
    before = TotalVariation()(both[:1], operator)
    old, new = (psnr(truth[0, 0].numpy(), image[0].numpy()) for image in (before[0], images[0]))
    assert new > old + 5


def test_underdetermined_operator_is_solved_within_the_default_iterations():
    """Without continuation the first iterations hardly move: 14 dB instead of 43."""
    truth = brain_phantom(1, (128, 160), torch.Generator().manual_seed(0))[:, None]
    operator = BlockCompressedSensing((1, 128, 160), 0.25)
    image = TotalVariation()(operator(truth), operator)
    assert float(20 * torch.log10(truth.max() / (image - truth).square().mean().sqrt())) > 35
