r"""The two halves of a deterministic diffusion step: DDIM with η = 0 (Song et al., ICLR 2021, eq. 12).

Equations 3 and 5 in docs/idm.md. A noisy image is :math:`x_t = \sqrt{\barα_t}\, x_0 + \sqrt{1 - \barα_t}\, e`.
"""

import torch
from torch import Tensor


def denoise(x: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""Return the clean image, :math:`x_0 = (x_t - \sqrt{1 - \barα_t}\, e) / \sqrt{\barα_t}`."""
    return (x - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()


def renoise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""Return the image at an earlier step, :math:`\sqrt{\barα_{t-1}}\, x_0 + \sqrt{1 - \barα_{t-1}}\, e`."""
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def white_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return noise of standard deviation 1 in the shape of a tensor, the same for a seed wherever that is."""
    place = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=place, dtype=like.dtype).to(like.device)
