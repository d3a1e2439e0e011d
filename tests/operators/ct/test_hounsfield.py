"""CT numbers."""

import numpy as np
import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators.ct.hounsfield import MU_WATER, from_hounsfield, to_hounsfield


def test_definition():
    mu = torch.tensor([0.0, 0.019, 0.0384])
    assert torch.allclose(to_hounsfield(mu, mu_water=0.0192), 1000 * (mu - 0.0192) / 0.0192)
    with_air = to_hounsfield(torch.tensor([0.00002, MU_WATER]), mu_air=0.00002)
    assert torch.allclose(with_air, torch.tensor([-1000.0, 0.0]), atol=1e-3)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_there_and_back(kind):
    hu = kind([-1000.0, -300.0, 0.0, 2500.0])
    assert np.allclose(np.asarray(to_hounsfield(from_hounsfield(hu))), np.asarray(hu), atol=1e-9 * 1e5)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_padding_is_vacuum(kind):
    assert float(from_hounsfield(kind([-2000.0]))[0]) == 0


@pytest.mark.parametrize(("water", "air"), [(0.0, 0.0), (-1.0, 0.0), (0.02, 0.03), (float("nan"), 0.0)])
def test_errors(water, air):
    with pytest.raises(UsageError, match="mu_air < mu_water"):
        to_hounsfield(torch.zeros(1), mu_water=water, mu_air=air)
