"""Where there is an object at all: what operators know of it, and images of networks that heed it."""

import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.presets import preset
from medrecon.models.registry import build_model
from medrecon.operators import CartesianMRI, Inpainting
from medrecon.operators.composition import vstack

SHAPE = (16, 12)


def seen(half):
    """Coil maps of one half of the field of view."""
    maps = torch.randn(1, 2, 3, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    maps[..., half] = 0
    return CartesianMRI(torch.arange(SHAPE[1]) % 2 == 0, maps)


def measured(operator):
    image = torch.randn(2, 2, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    return operator(image)


def with_offsets(model):
    """Change weights: those that start as zero make nothing of anything."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05)
    return model.requires_grad_(False)


LEFT, RIGHT = slice(6, None), slice(None, 6)


def test_coil_maps():
    support = seen(LEFT).support()
    assert support.dtype == torch.bool
    assert support.shape == (1, 2, *SHAPE)
    assert support[..., :6].all()
    assert not support[..., 6:].any()


def test_unmeasured_pixels_belong_to_it():
    assert CartesianMRI(torch.arange(12) % 2 == 0, image_shape=SHAPE).support() is None
    assert Inpainting(torch.zeros(1, 4, 4)).support() is None
    assert seen(LEFT).H.support() is None


def test_compounds():
    left, right = seen(LEFT), seen(RIGHT)
    single = CartesianMRI(image_shape=SHAPE)
    inner = CartesianMRI(
        torch.arange(12) % 2 == 0, torch.ones(1, 1, *SHAPE, dtype=torch.complex64) * (torch.arange(12) < 6)
    )
    assert torch.equal((left * 3).support(), left.support())
    assert torch.equal((single @ inner).support(), inner.support())
    assert (left + right).support().all()
    assert torch.equal((left + left).support(), left.support())
    assert vstack([left, right]).support().all()
    assert vstack([inner, single]).support() is None


@pytest.mark.parametrize("name", ["idm", "unet", "ddnm"])
def test_networks_make_nothing_of_nowhere(name):
    operator = seen(LEFT)
    image = with_offsets(build_model(name, preset="tiny", image_channels=2))(measured(operator), operator)
    assert (image[..., 6:] == 0).all()
    assert (image[..., :6] != 0).all()


def test_what_they_start_from_stays_there():
    operator = seen(LEFT)
    model = with_offsets(build_model("idm", preset="tiny", image_channels=2, parameters={"warm_start": "tv"}))
    y = measured(operator)
    with torch.no_grad():
        images, start, _ = model._reconstruct(y, operator)
    assert (start[..., 6:] != 0).all()  # the least variation continues what is beside
    assert torch.equal(images[..., 6:], start[..., 6:])
    assert (images[..., :6] != start[..., :6]).all()


def test_it_is_nothing_to_learn_either():
    operator = seen(LEFT)
    model = InvertibleDiffusionModel.from_config({**preset("tiny", image_channels=2, steps=1)})
    truth = torch.zeros(1, 2, *SHAPE, dtype=torch.complex64)
    images, _, _ = model._reconstruct(operator(truth + 1), operator)
    (images - truth)[..., 6:].abs().sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
