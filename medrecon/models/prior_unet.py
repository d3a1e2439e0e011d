"""diffusers' U-Net of noisy images and times, on images of any size."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from medrecon.models.injector import extended

UNET_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "base": {"widths": [96, 192, 288, 384], "layers": 2, "attention": [3], "groups": 32},
    "small": {},
    "tiny": {"widths": [8, 16], "groups": 4},
}
"""Sizes of the U-Net in the presets of all priors."""


class PriorUNet(nn.Module):
    """``UNet2DModel`` F(x, t[, u]), zero before training; images are extended by reflection and cropped afterwards.

    Parameters
    ----------
    in_channels, out_channels
        Real channels.
    widths
        Channels of the levels, finest first.
    layers
        Residual blocks of a level.
    attention
        Levels with attention, counted from the finest.
    groups
        Of the group norms.
    second_time
        Whether there is a second time u.
    dropout
        In the residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        layers: int = 1,
        attention: Sequence[int] = (),
        groups: int = 8,
        second_time: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        levels = range(len(widths))
        build: Any = UNet2DModel
        self.net = build(
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple("AttnDownBlock2D" if level in attention else "DownBlock2D" for level in levels),
            up_block_types=tuple("AttnUpBlock2D" if level in attention else "UpBlock2D" for level in reversed(levels)),
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            attention_head_dim=8,
            norm_num_groups=groups,
            dropout=dropout,
            add_attention=len(widths) - 1 in attention,
            class_embed_type="timestep" if second_time else None,
        )
        self.multiple = 2 ** (len(widths) - 1)
        nn.init.zeros_(self.net.conv_out.weight)
        nn.init.zeros_(self.net.conv_out.bias)

    def forward(self, x: Tensor, time: Tensor, second: Tensor | None = None) -> Tensor:
        """Return F, (B, out_channels, H, W).

        Parameters
        ----------
        x
            (B, in_channels, H, W), any size.
        time, second
            (B,), as the sinusoidal embedding takes them.
        """
        height, width = x.shape[-2:]
        padded = extended(x, *(-(-length // self.multiple) * self.multiple for length in (height, width)))
        return cast(Tensor, self.net(padded, time, class_labels=second, return_dict=False)[0])[..., :height, :width]
