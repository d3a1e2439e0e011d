"""Background phases are smooth, of the asked strength, and reproducible."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.simulation import smooth_phase


@pytest.mark.parametrize("shape", [(64, 48), (33, 65)])
def test_strength_and_smoothness(shape):
    phase = smooth_phase(shape, torch.Generator().manual_seed(0), strength=1.0)
    assert phase.shape == shape
    assert phase.dtype == torch.float32
    assert float(phase.std(correction=0)) == pytest.approx(1, rel=1e-5)
    for axis in (0, 1):
        assert phase.diff(dim=axis).abs().max() < 15 / shape[axis]


def test_seed():
    first, second, third = (smooth_phase((16, 16), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1)])
def test_no_strength_leaves_a_constant(shape):
    phase = smooth_phase(shape, torch.Generator().manual_seed(0), strength=0)
    assert torch.equal(phase, phase[:1, :1].expand(shape))


@pytest.mark.parametrize("options", [{"order": 0}, {"strength": -1.0}])
def test_errors(options):
    with pytest.raises(UsageError, match="smooth_phase"):
        smooth_phase((8, 8), torch.Generator(), **options)
