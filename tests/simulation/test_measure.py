"""Simulated measurements: the physics, the noise level, what stays zero, reproduction from a seed."""

import pytest
import torch

from medrecon.errors import NumericalError, UsageError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting
from medrecon.operators.recipes import load_recipe
from medrecon.operators.samplers import CoilArray
from medrecon.simulation import brain_phantom, shepp_logan, simulate, smooth_phase


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def brains():
    image = brain_phantom(3, (64, 56), seeded())
    return torch.polar(image, smooth_phase((64, 56), seeded(1)).expand_as(image).contiguous())


def test_noise_free_measurements_are_the_operator_applied(brains):
    operator = load_recipe("mri-cartesian-4x").draw((64, 56), seeded())
    result = simulate(brains, operator, generator=seeded())
    assert result.operator is operator
    assert torch.allclose(result.measurements, operator(brains[:, None]), atol=1e-6)
    coil = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(operator.maps[0, 0, 2] * brains[1]), norm="ortho"))
    assert torch.allclose(result.measurements[1, 2], coil * operator.mask[0], atol=1e-5)


def test_fully_sampled_noise_has_the_stated_level_in_the_image(brains):
    maps = CoilArray(6).draw((64, 56), seeded())
    operator = CartesianMRI(None, maps)
    y = simulate(brains, operator, noise=0.05, generator=seeded()).measurements
    error = operator.pinv(y)[:, 0] - brains
    peak = float(brains.abs().max())
    assert float(error.real.std()) == pytest.approx(0.05 * peak, rel=0.03)
    assert float(error.imag.std()) == pytest.approx(0.05 * peak, rel=0.03)
    assert abs(complex(error.mean())) < 0.003


@pytest.mark.parametrize("name", ["mri-cartesian-8x", "mri-poisson-8x", "inpainting-50"])
def test_what_is_not_sampled_stays_exactly_zero(brains, name):
    image = brains if name.startswith("mri") else brains.abs()
    y, operator = simulate(image, load_recipe(name), noise=0.1, generator=seeded())
    mask = operator.mask.reshape(1, 1, *y.shape[-2:]) != 0
    assert (y[~mask.expand_as(y)] == 0).all()
    assert (y[mask.expand_as(y)] != 0).double().mean() > 0.99


def test_noise_does_not_depend_on_the_mask(brains):
    wide, narrow = (CartesianMRI(torch.arange(56) % step == 0, image_shape=(64, 56)) for step in (2, 4))
    noisy = [simulate(brains, operator, noise=0.1, generator=seeded()).measurements for operator in (wide, narrow)]
    assert torch.allclose(noisy[0] * narrow.mask, noisy[1], atol=1e-6)


def test_same_seed_same_measurements(brains):
    first, second, third = (
        simulate(brains, load_recipe("mri-random-4x"), noise=0.01, generator=seeded(seed)).measurements
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_noise_scales_with_the_operator():
    operator = BlockCompressedSensing((1, 32, 32), 0.5, block_size=16)
    image = shepp_logan((32, 32))
    once = simulate(image, operator, noise=0.1, generator=seeded()).measurements
    thrice = simulate(image, operator * 3.0, noise=0.1, generator=seeded()).measurements
    assert torch.allclose(thrice, 3 * once, rtol=0.05, atol=0.05)
    assert float((once - operator(image[None])).std()) == pytest.approx(0.1, rel=0.1)


def test_double_precision_and_real_images_for_complex_operators():
    operator = CartesianMRI(None, image_shape=(16, 12))
    y = simulate(torch.ones(2, 16, 12, dtype=torch.float64), operator, noise=0.1, generator=seeded()).measurements
    assert y.dtype == torch.complex128
    assert y.shape == (2, 1, 16, 12)


def test_one_operator_a_slice():
    masks = torch.stack([torch.arange(12) % 2 == 0, torch.arange(12) % 3 == 0])[:, None, :].expand(2, 8, 12)
    operator = CartesianMRI(masks)
    y = simulate(torch.ones(2, 8, 12), operator, noise=0.1, generator=seeded()).measurements
    assert torch.equal(y[:, 0] != 0, masks)
    with pytest.raises(UsageError, match="batch of 2, the stack has 3"):
        simulate(torch.ones(3, 8, 12), operator, generator=seeded())


def test_channels():
    operator = Inpainting(torch.ones(1, 4, 4), channels=3)
    assert simulate(torch.ones(2, 3, 4, 4), operator, generator=seeded()).measurements.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("image", "noise", "error", "message"),
    [
        (torch.ones(4, 4), 0.0, UsageError, "expected images"),
        (torch.ones(1, 4, 4), -0.1, UsageError, "relative standard deviation"),
        (torch.ones(1, 4, 4), float("nan"), UsageError, "relative standard deviation"),
        (torch.ones(1, 4, 4, dtype=torch.complex64), 0.1, UsageError, "measures real images"),
        (torch.zeros(1, 4, 4), 0.1, NumericalError, "is 0.0"),
        (torch.full((1, 4, 4), float("nan")), 0.1, NumericalError, "is nan"),
        (torch.full((1, 4, 4), float("inf")), 0.1, NumericalError, "is inf"),
    ],
)
def test_errors(image, noise, error, message):
    with pytest.raises(error, match=message):
        simulate(image, Inpainting(torch.ones(1, 4, 4)), noise=noise, generator=seeded())
