"""3-D to stacks of 2-D, and cropping in space."""

import numpy as np
import pytest
import torch

from medrecon.io.hybrid import crop_in_space, full_axis, to_hybrid
from medrecon.operators.fourier import centred_fft, centred_ifft


def complex_normal(*shape):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 5, 3)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_the_hybrid_space_are_slices_of_the_image(shape, axis):
    image = complex_normal(*shape)
    stack = to_hybrid(centred_fft(image, (0, 1, 2)), axis)
    assert torch.allclose(centred_ifft(stack, (1, 2)), image.movedim(axis, 0), atol=1e-5)


def test_undersampled_planes_stay_exact():
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    volume = centred_fft(complex_normal(8, 6, 4), (0, 1, 2)) * mask
    stack = to_hybrid(volume, 0)
    assert torch.equal((stack != 0).any(0), mask)
    assert torch.allclose(stack.norm(), volume.norm())


def test_full_axis_is_found_by_preference():
    lines = np.zeros((8, 6, 4), bool)
    lines[:, ::2, 1] = True
    assert full_axis(lines, (2, 1, 0)) == 0, "planes left out in between or on most of an axis are undersampling"
    assert full_axis(np.ones((2, 3, 4), bool), (2, 1, 0)) == 2
    lines[:3] = False  # a partial echo
    assert full_axis(lines, (2, 1, 0)) == 0


def test_no_axis_of_random_samples():
    rng = np.random.default_rng(0)
    assert full_axis(rng.random((8, 8, 8)) < 0.5, (0, 1, 2)) is None
    assert full_axis(np.zeros((2, 2, 2), bool), (0, 1, 2)) is None


@pytest.mark.parametrize(("full", "size"), [(16, 8), (16, 7), (15, 8), (15, 7), (9, 9)])
def test_crop_keeps_the_image_and_its_centre(full, size):
    image = complex_normal(3, full, 4)
    cropped = centred_ifft(crop_in_space(centred_fft(image, (1,)), 1, size), (1,))
    start = full // 2 - size // 2
    assert torch.allclose(cropped, image[:, start : start + size], atol=1e-5)


@pytest.mark.parametrize("size", [0, 9])
def test_impossible_crops(size):
    with pytest.raises(ValueError, match="cannot crop 8 samples"):
        crop_in_space(complex_normal(8), 0, size)
