"""Without injectors and without mixing the Invertible Diffusion Model is DDNM with η = 0: the steps are shared."""

from dataclasses import dataclass

import pytest
import torch

from medrecon.models.ddnm import DDNM
from medrecon.models.inverse_problem import InverseProblem
from medrecon.operators import BlockCompressedSensing


@dataclass(frozen=True)
class Started(InverseProblem):
    """Starts where the Invertible Diffusion Model does; with η = 0 all later noise counts nothing."""

    def draw_noise(self, generator):
        del generator
        return self.begin

    begin: torch.Tensor | None = None


class Predictor:
    """The noise predictor of an Invertible Diffusion Model."""

    def __init__(self, model, operator, initial):
        self.model, self.operator, self.initial = model, operator, initial
        self.alpha_bars = model.alpha().cumprod(0)

    def predict_noise(self, x, time):
        return self.model.unet(x, self.operator, self.initial, time)


@pytest.mark.parametrize("mixed", [False, True])
def test_equal(tiny, mixed):
    model = tiny(
        steps=3, injectors="none", data_consistency="projection", mix_bounds=(0.0, 0.95), dtype=torch.float64
    ).eval()
    with torch.no_grad():
        if not mixed:
            model.v.theta.fill_(-1e4)
        model.merge.zero_()
        operator = BlockCompressedSensing((1, 18, 13), 0.4, block_size=8)
        x = torch.randn(2, 1, 18, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = operator(x)
        initial = operator.initial(y)
        wanted = model.sample(y, operator, initial)
        predictor = Predictor(model, operator, initial)
        problem = Started(y, operator, initial, begin=predictor.alpha_bars[-1].sqrt() * initial)
        found = DDNM(steps=3, eta=0.0)(predictor, problem)
    assert torch.allclose(found, wanted, atol=1e-12) != mixed
