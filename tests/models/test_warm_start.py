"""A warm start: the network begins with an image that agrees with the data."""

import pytest
import torch

from medrecon.complex import from_channels
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.presets import preset
from medrecon.operators import CartesianMRI, ParallelBeam2D
from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.operators.scaling import intensity_scale
from medrecon.reconstructors import make_method
from medrecon.simulation import brain_phantom, random_ellipses

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
    model = model_with(warm_start="least-squares", consistency_iterations=60)
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
    warm, cold = model_with(warm_start="least-squares"), model_with()
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


def seen_initial(model, y, operator, monkeypatch):
    """Return the x_init that the U-Net sees, in the units of the data."""
    seen = []
    monkeypatch.setattr(model.unet, "forward", lambda x, *rest, **_: seen.append(rest[1]) or torch.zeros_like(x))
    with torch.no_grad():
        model(y, operator)
    scale = intensity_scale(operator, y).reshape(-1, 1, 1, 1)
    initial = seen[0] if model.settings.image_channels == 1 else from_channels(seen[0])
    return initial * scale


def test_starts_from_least_total_variation(acquisition, monkeypatch):
    """x_init is what the method ``tv`` makes of the measurements, at any scale of operator and data, batch or not."""
    operator, image, _ = acquisition
    smooth = brain_phantom(2, SHAPE, torch.Generator().manual_seed(1))[:, None].to(torch.complex64)
    for unit, factor in ((1.0, 1.0), (1e-4, 30.0)):
        scaled = operator * factor
        y = scaled(torch.cat([smooth, image]) * unit)
        found = seen_initial(model_with(warm_start="tv"), y, scaled, monkeypatch)
        wanted = make_method("tv")(y, scaled)
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-3
        assert float((wanted - scaled.initial(y) / factor**2).abs().max() / wanted.abs().max()) > 0.1


def test_total_variation_of_sinograms(monkeypatch):
    operator = ParallelBeam2D((24, 24), torch.arange(12) * torch.pi / 12, detector_count=35)
    y = operator(random_ellipses(2, (24, 24), torch.Generator().manual_seed(0))[:, None].float())
    model = InvertibleDiffusionModel.from_config({**preset("tiny", steps=1), "warm_start": "tv"})
    found, wanted = seen_initial(model, y, operator, monkeypatch), make_method("tv")(y, operator)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-2


def test_an_unknown_start():
    with pytest.raises(ValueError, match="warm_start must be one of none, least-squares, tv, got True"):
        model_with(warm_start=True)


@pytest.mark.parametrize("start", ["least-squares", "tv"])
@pytest.mark.parametrize("memory", ["checkpoint", "min"])
def test_gradients_in_every_memory_mode(acquisition, memory, start):
    operator, _, y = acquisition
    model = model_with(warm_start=start)
    found = []
    for mode in ("none", memory):
        model.memory = mode
        model.zero_grad()
        model(y, operator).abs().mean().backward()
        found.append(
            torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
        )
    assert torch.allclose(*found, rtol=1e-3, atol=1e-6 * float(found[0].abs().max()))
