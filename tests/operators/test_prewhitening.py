"""Prewhitening: the noise becomes white, bad noise scans are refused."""

import pytest
import torch

from medrecon.errors import NumericalError
from medrecon.operators.prewhitening import noise_covariance, prewhiten, whitening_matrix


def complex_normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mixing():
    return complex_normal(5, 5, seed=1) + 2 * torch.eye(5)


def test_whitened_noise_is_white(mixing):
    noise = complex_normal(4000, 5) @ mixing.T + 3
    covariance = noise_covariance(noise)
    whitener = whitening_matrix(covariance)
    assert torch.allclose(whitener @ covariance @ whitener.mH, torch.eye(5, dtype=torch.complex64), atol=1e-5)
    assert torch.allclose(covariance, mixing @ mixing.mH, rtol=0.15, atol=0.8)
    assert not whitener.triu(1).any()
    other = prewhiten((complex_normal(4000, 5, seed=2) @ mixing.T).T.reshape(5, 40, 100), whitener)
    again = noise_covariance(other.reshape(5, -1).T)
    assert torch.allclose(again, torch.eye(5, dtype=torch.complex64), atol=0.1)


def test_covariance_is_that_of_numpy():
    import numpy as np

    noise = complex_normal(50, 3)
    assert np.allclose(noise_covariance(noise).numpy(), np.cov(noise.numpy().T), atol=1e-5)


def test_covariance_keeps_its_scale_over_many_orders():
    noise = complex_normal(500, 3) * 1e-9
    whitener = whitening_matrix(noise_covariance(noise.to(torch.complex128)))
    assert torch.isfinite(torch.view_as_real(whitener)).all()


def test_batches_pass(mixing):
    whitener = whitening_matrix(noise_covariance(complex_normal(100, 5) @ mixing.T))
    kspace = complex_normal(3, 5, 4, 6)
    whole = prewhiten(kspace, whitener)
    assert torch.allclose(whole[1], prewhiten(kspace[1], whitener), atol=1e-6)
    assert torch.allclose(whole[0, :, 2, 3], whitener @ kspace[0, :, 2, 3], atol=1e-5)


def test_dead_coil_and_copy_are_refused():
    noise = complex_normal(100, 3)
    dead = noise.clone()
    dead[:, 1] = 0
    copied = noise.clone()
    copied[:, 2] = copied[:, 0]
    for bad in (dead, copied):
        with pytest.raises(NumericalError, match="dead or a copy"):
            whitening_matrix(noise_covariance(bad))


def test_too_few_samples_and_nan():
    with pytest.raises(NumericalError, match="at least 9"):
        noise_covariance(complex_normal(8, 8))
    noise = complex_normal(100, 3)
    noise[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="NaN"):
        whitening_matrix(noise_covariance(noise))


def test_wrong_shapes():
    with pytest.raises(ValueError, match="samples, coils"):
        noise_covariance(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="coils, coils"):
        whitening_matrix(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="does not fit"):
        prewhiten(complex_normal(4, 3, 3), torch.eye(5, dtype=torch.complex64))
