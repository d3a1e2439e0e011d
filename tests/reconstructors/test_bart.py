"""Against BART on equal terms: the same k-space, the same maps."""

import numpy as np
import pytest
import torch

from medrecon.operators import CartesianMRI
from medrecon.operators.fourier import centred_fft, centred_ifft
from medrecon.reconstructors import L1Wavelet, Tikhonov, TotalVariation


def psnr(image, reference):
    image, reference = np.abs(np.asarray(image)).astype(float), np.asarray(reference).astype(float)
    image = image * ((image * reference).sum() / (image * image).sum())
    return 10 * np.log10(reference.max() ** 2 / np.mean((image - reference) ** 2))


@pytest.mark.parametrize("weight", [0.001, 0.01, 0.1])
def test_cg_sense_agrees(brain, pics, weight):
    expected = pics(brain.data[0], brain.maps, "-S", "-l2", "-r", weight, "-i", 20)
    image = Tikhonov(weight, 20, 0)(brain.data, brain.operator)[0, 0].numpy()
    assert np.linalg.norm(image - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("method", "option", "weights"),
    [(TotalVariation(), "T", (0.002, 0.005, 0.01)), (L1Wavelet(), "W", (0.002, 0.005, 0.01))],
    ids=["tv", "l1-wavelet"],
)
def test_default_is_as_good_as_the_best_of_bart(brain, pics, method, option, weights):
    reference = brain.image[0, 0].abs()
    theirs = max(
        psnr(pics(brain.data[0], brain.maps, "-S", f"-R{option}:3:0:{weight}", "-i", 100), reference)
        for weight in weights
    )
    assert psnr(method(brain.data, brain.operator)[0, 0], reference) > theirs - 0.5


@pytest.fixture(scope="module")
def real_brain(shared_data):
    """Four-coil T2 images of a head, every fourth line and 8 % of the centre; maps from low frequencies."""
    from scipy.io import loadmat

    path = shared_data / "mri_kspace/gpunufft_brain_4ch_full/img_brain_4ch.mat"
    if not path.is_file():
        pytest.skip(f"needs {path.name}")
    coils = torch.from_numpy(loadmat(path)["img"].transpose(2, 0, 1).astype(np.complex64))
    mask = torch.arange(256) % 4 == 1
    mask[118:138] = True
    kspace = centred_fft(coils) * mask
    window = torch.zeros(256)
    window[116:140] = torch.hann_window(24, periodic=False)
    low = centred_ifft(kspace * window * window[:, None])
    strength = low.abs().square().sum(0).sqrt()
    maps = low / strength * (strength > 0.05 * strength.max())
    return kspace[None], CartesianMRI(mask, maps), coils.abs().square().sum(0).sqrt()


def test_gain_on_a_real_scan(real_brain):
    kspace, operator, reference = real_brain
    zero_filled = psnr(centred_ifft(kspace[0]).abs().square().sum(0).sqrt(), reference)
    for method, gain in ((Tikhonov(), 2), (TotalVariation(), 6), (L1Wavelet(), 6)):
        assert psnr(method(kspace, operator)[0, 0], reference) > zero_filled + gain
