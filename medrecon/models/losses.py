"""Training losses on magnitude images."""

import torch.nn.functional as F
from torch import Tensor

from medrecon.operators.solvers import per_sample

_WINDOW = 7
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
