import numpy as np
import pytest
import torch

from medrecon.io import ReadOptions, read_scan
from medrecon.operators.fourier import centred_fft, centred_ifft
from medrecon.simulation import brain_phantom


@pytest.fixture(params=[(64, 48), (65, 48), (33, 51)])
def image(request):
    return brain_phantom(1, request.param, torch.Generator().manual_seed(0))[0].to(torch.complex64)


def test_missing_shift_is_noticed_and_mended(image, tmp_path):
    """k-space as ``fftshift(fft2(image))`` leaves it."""
    kspace = torch.fft.fftshift(torch.fft.fft2(image, norm="ortho"))
    np.save(tmp_path / "k.npy", kspace.numpy())
    assert any("--half-fov-shift" in note for note in read_scan(tmp_path / "k.npy").notes)
    scan = read_scan(tmp_path / "k.npy", ReadOptions(half_fov_shift=True))
    torch.testing.assert_close(centred_ifft(scan.measurements[0])[0], image, rtol=1e-4, atol=1e-5)


def test_right_images_get_no_hint(image, tmp_path):
    np.save(tmp_path / "k.npy", centred_fft(image).numpy())
    assert not any("--half-fov-shift" in note for note in read_scan(tmp_path / "k.npy").notes)
