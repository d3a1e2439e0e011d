"""Data are weighed by how well any image explains them."""

import pytest
import torch

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.data_consistency import FIRM, unexplained
from medrecon.models.presets import preset
from medrecon.operators import CartesianMRI
from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.simulation import brain_phantom

SHAPE = (24, 20)


def model_with(data_consistency):
    torch.manual_seed(0)
    settings = {"data_consistency": data_consistency, "final_consistency": True, "mix": 0.9}
    return InvertibleDiffusionModel.from_config({**preset("tiny", image_channels=2, steps=2), **settings})


@pytest.fixture(scope="module")
def acquisition():
    """Two brains by six coils, the second with ten times the noise."""
    generator = torch.Generator().manual_seed(0)
    operator = CartesianMRI(torch.rand(SHAPE[1], generator=generator) < 0.5, CoilArray(count=6).draw(SHAPE, generator))
    y = operator(brain_phantom(2, SHAPE, generator)[:, None].to(torch.complex64))
    noise = torch.randn(y.shape, dtype=y.dtype, generator=generator) * operator.mask
    return operator, y + noise * y.abs().mean() * torch.tensor([0.1, 1.0]).reshape(2, 1, 1, 1)


def misfit(operator, y):
    normalized = operator * (1 / operator.norm_bound())
    return unexplained(y, normalized, normalized.initial(y))


def weights(model, operator, y):
    normalized = operator * (1 / operator.norm_bound())
    start = torch.view_as_real(normalized.initial(y))[:, 0].movedim(-1, 1)
    return model._data_weights(y, normalized, start)


def test_weights_are_divided_by_what_is_unexplained(acquisition):
    """λ_t ρ_0/ρ for each sample, never more than FIRM."""
    operator, y = acquisition
    model, rho = model_with("adaptive"), misfit(operator, y)
    assert float(rho[1]) > 5 * float(rho[0]) > 0
    with torch.no_grad():
        model.log_misfit.fill_(float(rho[0].log()) - 1)
    for found in weights(model, operator, y):
        assert torch.allclose(found, 19 * torch.exp(rho[:1].log() - 1) / rho, rtol=1e-4)
    with torch.no_grad():
        model.log_misfit.fill_(10.0)
    assert all(bool((found == FIRM).all()) for found in weights(model, operator, y))


def test_equals_learned_weights_where_the_data_are_as_usual(acquisition):
    operator, y = acquisition
    adaptive, learned = model_with("adaptive"), model_with("learned")
    assert adaptive.load_state_dict(learned.state_dict(), strict=False).missing_keys == ["log_misfit"]
    with torch.no_grad():
        for sample in y.split(1):
            adaptive.log_misfit.copy_(misfit(operator, sample).log())
            assert torch.allclose(adaptive(sample, operator), learned(sample, operator), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(adaptive(y[:1], operator), learned(y[:1], operator), rtol=1e-2)


def test_a_sample_is_weighed_by_itself(acquisition):
    operator, y = acquisition
    model = model_with("adaptive")
    with torch.no_grad():
        together, alone = model(y, operator), torch.cat([model(sample, operator) for sample in y.split(1)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-6)


def test_one_coil_explains_everything(acquisition):
    """A closed form leaves nothing: the weights are the learned ones, and the parameter has a gradient of zero."""
    many, _ = acquisition
    operator = CartesianMRI(many.mask[0, :1], image_shape=SHAPE)
    y = operator(torch.randn(1, 1, *SHAPE, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)))
    adaptive, learned = model_with("adaptive"), model_with("learned")
    assert torch.equal(adaptive(y, operator), learned(y, operator))
    adaptive(y, operator).abs().mean().backward()
    assert float(adaptive.log_misfit.grad) == 0


@pytest.mark.parametrize("memory", ["checkpoint", "min", "reversible"])
def test_gradient_is_the_same_however_it_is_kept(acquisition, memory):
    operator, y = acquisition
    model = model_with("adaptive").double()
    gradients = []
    for kept in ("none", memory):
        model.memory = kept
        model.zero_grad()
        model(y.to(torch.complex128), operator).abs().mean().backward()
        gradients.append(model.log_misfit.grad.clone())
    assert float(gradients[0].abs()) > 0
    assert torch.allclose(*gradients, rtol=1e-6)
