"""A warm start: the network begins with an image that agrees with the data."""

import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.presets import preset
from medrecon.operators import CartesianMRI
from medrecon.operators.samplers.coil_maps import CoilArray

SHAPE = (24, 20)


def model_with(**changes):
    torch.manual_seed(0)
    return InvertibleDiffusionModel.from_config({**preset("tiny", image_channels=2, steps=1), **changes})


@pytest.fixture(scope="module")
def acquisition():
    generator = torch.Generator().manual_seed(0)
    maps = CoilArray(count=6).draw(SHAPE, generator)
    operator = CartesianMRI(torch.rand(SHAPE[1], generator=generator) < 0.5, maps)
    image = torch.randn(1, 1, *SHAPE, dtype=torch.complex64, generator=generator)
    return operator, image, operator(image)


def test_starts_from_regularised_least_squares(acquisition, monkeypatch):
    """x_init becomes (I + λ A^H A)^-1 (x_init + λ A^H y), λ = 19 at first, by a dense solve in float64."""
    operator, _, y = acquisition
    model = model_with(warm_start=True, consistency_iterations=60)
    seen = []
    monkeypatch.setattr(model.unet, "forward", lambda x, *rest, **_: seen.append((x, rest[1])) or torch.zeros_like(x))
    scale, bound = 3.0, operator.norm_bound()
    normalized, scaled = operator * (1 / bound), y / (scale * bound)
    start = normalized.initial(scaled)
    with torch.no_grad():
        model.sample(scaled, normalized, torch.view_as_real(start)[:, 0].movedim(-1, 1))
    ((x, initial),) = seen
    basis = torch.eye(SHAPE[0] * SHAPE[1], dtype=torch.complex64).reshape(-1, 1, *SHAPE)
    gram = normalized.gram(basis).flatten(1).T.to(torch.complex128)
    right = (start + 19 * normalized.adjoint(scaled)).flatten().to(torch.complex128)
    wanted = torch.linalg.solve(torch.eye(len(right), dtype=torch.complex128) + 19 * gram, right)
    found = torch.view_as_complex(initial.movedim(1, -1).contiguous()).flatten().to(torch.complex128)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-3
    assert torch.allclose(x, model.alpha().detach().prod().sqrt() * initial, atol=1e-5)


def test_is_learned_and_changes_nothing_where_a_closed_form_exists(acquisition):
    operator, image, y = acquisition
    warm, cold = model_with(warm_start=True), model_with()
    missing = warm.load_state_dict(cold.state_dict(), strict=False).missing_keys
    assert missing == [name for name in warm.state_dict() if name.startswith("first_trust")]
    with torch.no_grad():
        assert not torch.allclose(warm(y, operator), cold(y, operator), rtol=1e-3)
        single = CartesianMRI(operator.mask[0, :1], image_shape=SHAPE)
        assert torch.allclose(warm(single(image), single), cold(single(image), single))
    warm(y, operator).abs().mean().backward()
    gradients = [parameter.grad for name, parameter in warm.named_parameters() if name.startswith("first_trust")]
    assert gradients
    assert all(gradient is not None and float(gradient.abs()) > 0 for gradient in gradients)


@pytest.mark.parametrize("memory", ["checkpoint", "min"])
def test_gradients_in_every_memory_mode(acquisition, memory):
    operator, _, y = acquisition
    model = model_with(warm_start=True)
    found = []
    for mode in ("none", memory):
        model.memory = mode
        model.zero_grad()
        model(y, operator).abs().mean().backward()
        found.append(
            torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
        )
    assert torch.allclose(*found, rtol=1e-3, atol=1e-6 * float(found[0].abs().max()))
