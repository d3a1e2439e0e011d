"""Training losses."""

from difflib import get_close_matches
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from medrecon.complex import to_channels
from medrecon.datasets.batch import centre_magnitude
from medrecon.errors import UsageError
from medrecon.operators.solvers import per_sample

Loss = Literal["l1", "ssim", "l1+ssim", "relative-l1"]
"""See :func:`image_loss`."""

_WINDOW = 7
_FLOOR = 1e-3
_K1, _K2 = 0.01, 0.03


def ssim_loss(image: Tensor, target: Tensor, data_range: Tensor | None = None) -> Tensor:
    r"""Return 1 - SSIM, averaged over the pixels, channels and samples of a batch.

    .. math:: \frac{(2 μ_x μ_y + c_1)(2 σ_{xy} + c_2)}{(μ_x^2 + μ_y^2 + c_1)(σ_x^2 + σ_y^2 + c_2)}, \quad
        c_i = (K_i L)^2

    over uniform 7 x 7 windows that lie inside the image, with sample covariance, K = (0.01, 0.03): fastMRI's
    ``SSIMLoss``, and the definition of :func:`medrecon.metrics.ssim` (Wang et al., IEEE Trans. Image
    Process. 13:600, 2004).

    Parameters
    ----------
    image, target
        Real images (B, C, H, W), at least 7 x 7.
    data_range
        L of each sample, (B,); the maximum of its target by default.

    Raises
    ------
    ValueError
        For images that are complex, differ in shape, or are smaller than the window.
    """
    if image.shape != target.shape or image.ndim != 4 or image.is_complex() or min(image.shape[2:]) < _WINDOW:
        raise ValueError(
            f"ssim_loss: expected two real tensors (B, C, H, W) of at least {_WINDOW} x {_WINDOW} pixels, got "
            f"{tuple(image.shape)} {image.dtype} and {tuple(target.shape)} {target.dtype}"
        )
    full = target.amax((1, 2, 3)) if data_range is None else data_range.to(target.dtype)
    c1, c2 = (per_sample((k * full) ** 2, image) for k in (_K1, _K2))
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, stride=1)

    mx, my = mean(image), mean(target)
    vx, vy = (unbiased * (mean(x * x) - m * m) for x, m in ((image, mx), (target, my)))
    cov = unbiased * (mean(image * target) - mx * my)
    similarity = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return 1 - similarity.mean()


def image_loss(
    loss: Loss, images: Tensor, target: Tensor, reference: Tensor | None = None, initial: Tensor | None = None
) -> Tensor:
    r"""Return the loss of images that are real or complex and have any number of channels.

    ===================  ================================================================================
    loss
    ===================  ================================================================================
    ``"l1"``             mean of :math:`|\hat x - x|` over pixels and real channels (re and im apart)
    ``"ssim"``           :func:`ssim_loss` of the magnitudes :math:`\sqrt{Σ_c |x_c|^2}`; a single real channel
                         stays signed
    ``"l1+ssim"``        their sum
    ``"relative-l1"``    :math:`|\hat x - x| / (|x_{init} - x| + 10^{-3})`, each averaged over a sample: samples
                         that were nearly right before, at low acceleration, count as much as the others
    ===================  ================================================================================

    Parameters
    ----------
    loss
        One of the table.
    images, target
        (B, C, H, W), in the same units.
    reference
        The magnitude (B, h, w) that SSIM compares with in place of the target's, in those units; the images
        are cropped to its size around their centre. Such is the ground truth of fastMRI, the root sum of
        squares of the coil images, which is not the magnitude of a coil-combined image.
    initial
        x_init, like the images; "relative-l1" needs it.

    Raises
    ------
    UsageError
        For another loss, or images, target and reference that do not fit each other.
    """
    known = get_args(Loss)
    if loss not in known:
        close = get_close_matches(str(loss), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"no loss is called {loss!r}, there are {', '.join(known)}{hint}")
    if images.shape != target.shape or images.is_complex() != target.is_complex():
        raise UsageError(
            f"image_loss: expected images like the target, {tuple(target.shape)} {target.dtype}, got "
            f"{tuple(images.shape)} {images.dtype}"
        )
    value = images.real.new_zeros(())
    if loss == "relative-l1":
        if initial is None or initial.shape != images.shape:
            raise UsageError("image_loss: 'relative-l1' compares with x_init, which must be like the images")
        after, before = ((to_channels(x) - to_channels(target)).abs().flatten(1).mean(1) for x in (images, initial))
        value = value + (after / (before + _FLOOR)).mean()
    elif "l1" in loss:
        value = value + (to_channels(images) - to_channels(target)).abs().mean()
    if "ssim" in loss:
        wanted = centre_magnitude(target) if reference is None else _checked(reference, images)
        height, width = wanted.shape[1:]
        found = centre_magnitude(images, (height, width))
        value = value + ssim_loss(found[:, None], wanted[:, None], _range(wanted))
    return value


def _checked(reference: Tensor, images: Tensor) -> Tensor:
    """Return a reference (B, h, w) that fits the images, in their precision."""
    fits = reference.ndim == 3 and len(reference) == len(images) and not reference.is_complex()
    if not fits or any(n > size for n, size in zip(reference.shape[1:], images.shape[2:], strict=True)):
        raise UsageError(
            f"reference: expected a real tensor (B, h, w) no larger than the images {tuple(images.shape)}, got "
            f"{tuple(reference.shape)} {reference.dtype}"
        )
    return reference.to(images.real.dtype)


def _range(target: Tensor) -> Tensor:
    """Return the maximum of each target (B,), 1 for empty ones: SSIM of two empty images would be 0/0."""
    peak = target.amax((1, 2))
    return torch.where(peak > 0, peak, 1)
