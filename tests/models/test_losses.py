"""Losses against scikit-image, which fastMRI's evaluation uses, and against plain restatements."""

import pytest
import torch
from skimage.metrics import structural_similarity

from medrecon.datasets import TrainingBatch
from medrecon.errors import UsageError
from medrecon.models import InvertibleDiffusionModel, image_loss, ssim_loss
from medrecon.operators import Inpainting
from medrecon.operators.scaling import intensity_scale


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


def complex_pair(*shape):
    real, imaginary = pair(*shape), pair(*shape)
    return tuple(torch.complex(a, b.flip(-1)) for a, b in zip(real, imaginary, strict=True))


def restated_ssim(image, target):
    """1 - SSIM of (B, H, W), sample by sample, by scikit-image."""
    values = [
        structural_similarity(t, x, data_range=t.max())
        for x, t in zip(image.detach().numpy(), target.numpy(), strict=True)
    ]
    return 1 - sum(values) / len(values)


class TestImageLoss:
    def test_of_complex_channels(self):
        image, target = complex_pair(2, 3, 12, 11)
        difference = image - target
        l1 = float((difference.real.abs().sum() + difference.imag.abs().sum()) / (2 * difference.numel()))
        ssim = restated_ssim(*(x.abs().square().sum(1).sqrt() for x in (image, target)))
        assert float(image_loss("l1", image, target)) == pytest.approx(l1, abs=1e-12)
        assert float(image_loss("ssim", image, target)) == pytest.approx(ssim, abs=1e-10)
        assert float(image_loss("l1+ssim", image, target)) == pytest.approx(l1 + ssim, abs=1e-10)

    def test_of_real_channels(self):
        image, target = pair(2, 3, 12, 11)
        assert float(image_loss("l1", image, target)) == pytest.approx(float((image - target).abs().mean()))
        wanted = restated_ssim(image.square().sum(1).sqrt(), target.square().sum(1).sqrt())
        assert float(image_loss("ssim", image, target)) == pytest.approx(wanted, abs=1e-10)
        one = restated_ssim(image[:, 0], target[:, 0])  # signed: noise below zero is not folded up
        assert float(image_loss("ssim", image[:, :1], target[:, :1])) == pytest.approx(one, abs=1e-10)

    @pytest.mark.parametrize(("height", "width"), [(12, 11), (9, 8), (8, 11)])
    def test_reference(self, height, width):
        image, target = complex_pair(2, 1, 12, 11)
        reference = pair(2, height, width)[1].float()
        top, left = (12 - height) // 2, (11 - width) // 2
        found = image[:, 0].abs()[:, top : top + height, left : left + width]
        wanted = restated_ssim(found, reference.double())
        assert float(image_loss("ssim", image, target, reference)) == pytest.approx(wanted, abs=1e-10)
        assert torch.equal(image_loss("l1", image, target, reference), image_loss("l1", image, target))

    @pytest.mark.parametrize("channels", [1, 2])
    def test_gradient_where_the_image_is_zero(self, channels):
        image = torch.zeros(2, channels, 9, 8, dtype=torch.complex64, requires_grad=True)
        target = complex_pair(2, channels, 9, 8)[1].to(torch.complex64)
        target[1] = 0  # an empty slice, too
        for loss in ("l1", "ssim", "l1+ssim"):
            value = image_loss(loss, image, target)
            (gradient,) = torch.autograd.grad(value, image)
            assert bool(torch.isfinite(value))
            assert bool(torch.isfinite(torch.view_as_real(gradient)).all())

    def test_gradient(self):
        image, target = complex_pair(1, 2, 8, 8)
        assert torch.autograd.gradcheck(lambda x: image_loss("l1+ssim", x, target), image.requires_grad_())

    def test_relative(self):
        """Each sample counts by how far it was off at first."""
        image, target = complex_pair(2, 1, 9, 8)
        initial = target + torch.tensor([2.0, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1)
        error = torch.view_as_real(image - target).abs().mean((1, 2, 3, 4))
        wanted = (error / (torch.tensor([1.0, 0.005], dtype=torch.float64) + 1e-3)).mean()
        found = image_loss("relative-l1", image, target, initial=initial)
        assert float(found) == pytest.approx(float(wanted), rel=1e-10)
        with pytest.raises(UsageError, match="'relative-l1' compares with x_init"):
            image_loss("relative-l1", image, target)

    def test_mistakes(self):
        image = torch.ones(2, 1, 9, 9)
        with pytest.raises(
            UsageError, match=r"no loss is called 'l1\+sim', there are l1, ssim, l1\+ssim, relative-l1; did you mean"
        ):
            image_loss("l1+sim", image, image)
        with pytest.raises(UsageError, match=r"expected images like the target, \(2, 1, 9, 9\) .*, got \(1, 1, 9, 9\)"):
            image_loss("l1", image[:1], image)
        for shape in ((2, 10, 9), (1, 9, 9), (2, 1, 9, 9)):
            with pytest.raises(
                UsageError, match=r"reference: expected a real tensor \(B, h, w\) no larger than the im"
            ):
                image_loss("ssim", image, image, torch.ones(shape))


def test_of_a_model_in_its_intensities():
    """training_loss divides target and reference by the scale that the network saw."""
    operator = Inpainting(pair(1, 12, 11)[1].float() < 0.7)
    target = 40 * pair(2, 1, 12, 11)[1].float()
    model = InvertibleDiffusionModel.from_preset("tiny", steps=1)
    y = operator(target)
    scale = intensity_scale(operator, y).reshape(2, 1, 1, 1)
    reference = 1.3 * target[:, 0, 1:10, 1:9]
    with torch.no_grad():
        x = model(y, operator) / scale
        for loss in ("l1", "ssim", "l1+ssim"):
            wanted = image_loss(loss, x, target / scale, reference / scale[..., 0])
            found = model.training_loss(TrainingBatch(y, operator, target, reference=reference), loss)
            assert float(found) == pytest.approx(float(wanted), rel=1e-4), loss
        plain = model.training_loss(TrainingBatch(y, operator, target))
        relative = model.training_loss(TrainingBatch(y, operator, target), "relative-l1")
    assert float(plain) == pytest.approx(float((x - target / scale).abs().mean()), rel=1e-5)
    before = (operator.initial(y) - target) / scale
    errors = [float(part.abs().mean()) for part in (x - target / scale)], [float(part.abs().mean()) for part in before]
    wanted = sum(after / (first + 1e-3) for after, first in zip(*errors, strict=True)) / 2
    assert float(relative) == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(UsageError, match="no loss is called 'l2'"):
        model.training_loss(TrainingBatch(y, operator, target), "l2")
