"""Residual blocks of the U-Net."""

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class ResNetBlock(ResnetBlock2D):
    """x + conv(SiLU(GN(conv(SiLU(GN x))))), 3×3; Stable Diffusion's block without its time embedding.

    Parameters
    ----------
    in_channels, out_channels
        A 1×1 convolution takes x to ``out_channels`` where they differ.
    groups
        Of the group norms.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            temb_channels=None,  # type: ignore[arg-type]  # diffusers tests for None
            groups=groups,
            eps=1e-5,
        )

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no time embedding
        """Return features (B, out_channels, H, W)."""
        result: Tensor = super().forward(x, None)  # type: ignore[arg-type]
        return result


class PixelNorm(nn.Module):
    """Divide the channels of every pixel by their root mean square, times a learned weight.

    Unlike a group norm it does not look at other pixels, so what was learned on patches of tissue holds
    on whole images, most of which is air.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x * (torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * self.weight)


class GatedBlock(nn.Module):
    """Depth-wise convolution and a channel mixer, both gated by products instead of activations.

    With g(p, q) = p · q on the halves of the channels, as in NAFNet (Chen et al., ECCV 2022) but without
    its global channel attention: x += β conv(g(DW(conv(N x)))), then x += γ conv(g(conv(N x))). β and γ
    start at 0.3. Per second on a CPU it learns faster than :class:`ResNetBlock`.

    Parameters
    ----------
    in_channels, out_channels
        A 1×1 convolution comes first where they differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        c = out_channels
        self.conv_shortcut = nn.Conv2d(in_channels, c, 1) if in_channels != c else nn.Identity()
        self.norm1 = PixelNorm(c)
        self.expand = nn.Conv2d(c, 2 * c, 1)
        self.depthwise = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.project = nn.Conv2d(c, c, 1)
        self.norm2 = PixelNorm(c)
        self.mix_in = nn.Conv2d(c, 2 * c, 1)
        self.mix_out = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.full((1, c, 1, 1), 0.3))
        self.gamma = nn.Parameter(torch.full((1, c, 1, 1), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, out_channels, H, W)."""
        x = self.conv_shortcut(x)
        x = x + self.beta * self.project(_gate(self.depthwise(self.expand(self.norm1(x)))))
        return x + self.gamma * self.mix_out(_gate(self.mix_in(self.norm2(x))))


def _gate(x: Tensor) -> Tensor:
    p, q = x.chunk(2, dim=1)
    return p * q
