import pytest
import torch

from medrecon.operators.fourier import centred_fft, centred_ifft, centring_constant, centring_ramp


@pytest.mark.parametrize("shape", [(8, 6), (7, 6), (5, 9), (2, 2), (1, 3), (3,), (4, 6, 5), (640, 373)])
def test_ramp_replaces_the_shifts(shape):
    x = torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    axes = tuple(range(-len(shape), 0))
    ramp = centring_ramp(shape, dtype=torch.complex128)
    folded = centring_constant(shape) * ramp * torch.fft.fftn(ramp * x, dim=axes, norm="ortho")
    torch.testing.assert_close(folded, centred_fft(x, axes), rtol=1e-12, atol=1e-12)


def test_ramp_is_a_sign_for_even_sizes():
    ramp = centring_ramp((4, 6))
    assert ramp.dtype == torch.float32
    assert set(ramp.flatten().tolist()) == {-1.0, 1.0}


def test_inverse():
    x = torch.randn(2, 5, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(centred_ifft(centred_fft(x)), x)


def test_zero_frequency_is_the_middle_sample():
    assert centred_fft(torch.ones(5, 6, dtype=torch.complex64))[2, 3].real > 5
