"""MONAI's U-Net on images of any size."""

from collections.abc import Sequence
from typing import cast

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

from medrecon.models.injector import extended

_MULTIPLE = 16  # four levels, each of half the size
_SMALLEST = 32  # two pixels along each axis of the coarsest level: one alone has no variance to normalise by


class PaddedUNet(nn.Module):
    """MONAI's ``BasicUNet`` of five levels, U: (B, C, H, W) → (B, C, H, W), zero before training.

    Images are extended below and to the right, by reflection where they are large enough for that, to
    multiples of 16 pixels and at least 32, and cropped afterwards.

    Features are normalised image by image and channel by channel (instance norm with a learned scale
    and shift, as in fastMRI's baseline): batches of 1 are no special case, and no statistics are carried
    from training to use. But the mean and the variance are those of the whole field of view. A network
    trained on patches sees other ones on whole slices, with much air in them, and is the worse for it:
    train on whole slices, or on patches that are not small against them.

    Parameters
    ----------
    channels
        C.
    features
        Of the five levels, finest first, and of the last block.

    Raises
    ------
    ValueError
        For other than six positive numbers.
    """

    def __init__(self, channels: int, features: Sequence[int]) -> None:
        super().__init__()
        if len(features) != 6 or any(not isinstance(n, int) or n < 1 for n in features):
            raise ValueError(f"features: expected six positive integers, got {list(features)}")
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=channels,
            features=tuple(features),
            norm=("instance", {"affine": True}),
            bias=False,  # the norm takes it away again
        )
        nn.init.zeros_(self.unet.final_conv.weight)
        nn.init.zeros_(self.unet.final_conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return U(x), of the shape of x."""
        height, width = x.shape[-2:]
        padded = extended(x, _enough(height), _enough(width))
        return cast(Tensor, self.unet(padded))[..., :height, :width]


def _enough(size: int) -> int:
    return max(-(-size // _MULTIPLE) * _MULTIPLE, _SMALLEST)
