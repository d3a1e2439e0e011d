import pytest
import torch

from medrecon.operators import Inpainting
from medrecon.operators.scaling import energy_median, intensity_scale


def everything(height, width):
    return Inpainting(torch.ones(1, height, width, dtype=torch.bool))


def test_follows_data_and_operator(brain):
    scale = intensity_scale(brain.operator, brain.data)
    assert 0.2 < float(scale) < 1.0  # the phantom's grey levels
    assert torch.allclose(intensity_scale(brain.operator, 7e-9 * brain.data), 7e-9 * scale)
    assert torch.allclose(intensity_scale(brain.operator * 50.0, 50 * brain.data), scale)
    assert torch.allclose(intensity_scale(brain.operator * 50.0, brain.data), scale / 50)


def test_ignores_air_and_hot_pixels():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:40, 20:40] = 3.0
    small = intensity_scale(everything(64, 64), image)
    padded = torch.nn.functional.pad(image, (100, 100, 100, 100))
    assert torch.equal(intensity_scale(everything(264, 264), padded), small)
    image[..., 0, 0] = 50.0
    assert torch.equal(intensity_scale(everything(64, 64), image), small)


def test_zero_gives_one():
    assert intensity_scale(everything(8, 8), torch.zeros(2, 1, 8, 8)).tolist() == [1, 1]


def test_large_images_are_sampled():
    image = torch.ones(1, 1, 1100, 1000)
    assert energy_median(2 * image).tolist() == [2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_median_of_the_energy(dtype):
    # 3² + 1 + 1 = 11: half of it lies in the 3
    assert energy_median(torch.tensor([[[3, 1, 1]], [[1, 1, 0]]], dtype=dtype)).tolist() == [3, 1]
