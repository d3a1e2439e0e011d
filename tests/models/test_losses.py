"""The SSIM loss against scikit-image, which fastMRI's evaluation uses."""

import pytest
import torch
from skimage.metrics import structural_similarity

from medrecon.models import ssim_loss


def pair(*shape):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    return target + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64), target


def test_equals_scikit_image_with_a_range_for_each_sample():
    image, target = pair(3, 1, 20, 17)
    scale = torch.tensor([1.0, 1e-4, 300.0]).reshape(3, 1, 1, 1)
    image, target = image * scale, target * scale
    wanted = [
        structural_similarity(t.numpy(), x.numpy(), data_range=float(t.max()))
        for x, t in zip(image[:, 0], target[:, 0], strict=True)
    ]
    assert float(1 - ssim_loss(image, target)) == pytest.approx(sum(wanted) / 3, abs=1e-10)
    given = structural_similarity(target[0, 0].numpy(), image[0, 0].numpy(), data_range=5.0)
    assert float(1 - ssim_loss(image[:1], target[:1], torch.tensor([5.0]))) == pytest.approx(given, abs=1e-10)


def test_gradient_and_minimum():
    image, target = pair(2, 1, 9, 8)
    assert torch.autograd.gradcheck(ssim_loss, (image.requires_grad_(), target))
    assert float(ssim_loss(target, target)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 6, 9), (1, 9, 9)])
def test_sizes(shape):
    with pytest.raises(ValueError, match="at least 7 x 7 pixels"):
        ssim_loss(torch.ones(shape), torch.ones(shape))
    with pytest.raises(ValueError, match="expected two real tensors"):
        ssim_loss(torch.ones(1, 1, 9, 9, dtype=torch.complex64), torch.ones(1, 1, 9, 9))
