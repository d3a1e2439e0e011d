import pytest
import torch

from medrecon.complex import from_channels, to_channels


def test_round_trip_and_order():
    x = torch.randn(2, 3, 4, 5, dtype=torch.complex64)
    channels = to_channels(x)
    assert channels.shape == (2, 6, 4, 5)
    assert torch.equal(channels[:, 2], x[:, 1].real)
    assert torch.equal(channels[:, 3], x[:, 1].imag)
    assert torch.equal(from_channels(channels), x)


def test_real_passes():
    x = torch.randn(2, 3, 4, 5)
    assert to_channels(x) is x


@pytest.mark.parametrize("x", [torch.ones(1, 3, 2, 2), torch.ones(1, 2, 2, 2, dtype=torch.complex64), torch.ones(4)])
def test_refuses_what_it_cannot_join(x):
    with pytest.raises(ValueError, match="expected a real tensor"):
        from_channels(x)
