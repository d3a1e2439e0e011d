"""Injectors: what the measurements say, mixed into the features of a network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrecon.complex import from_channels, to_channels
from medrecon.operators.base import LinearOperator


class Injector(nn.Module):
    r"""Mix the physics into a feature map h (Chen et al., IDM, TPAMI 2025; equation 6 in docs/idm.md).

    .. math:: z = \mathrm{f2i}(h), \qquad h + \mathrm{i2f}([\,z,\; A^H A z,\; x_{init}\,])

    f2i leads to image channels at image size (1×1 convolution after a pixel shuffle), i2f back.

    Parameters
    ----------
    channels
        Of the feature map.
    image_channels
        Real channels of the image, 2 for a complex one.
    scale
        Pixels of the image per pixel of the feature map, along each axis.
    zero_init
        Start as the identity; the published model starts with random branches.
    """

    def __init__(self, channels: int, image_channels: int, scale: int, *, zero_init: bool = False) -> None:
        super().__init__()
        if channels % scale**2:
            raise ValueError(f"Injector: {channels} channels do not make {scale}x{scale} pixels; choose a multiple")
        self.scale = scale
        self.f2i = nn.Conv2d(channels // scale**2, image_channels, 1)
        self.i2f = nn.Conv2d(3 * image_channels, channels // scale**2, 1)
        if zero_init:
            for parameter in self.i2f.parameters():
                nn.init.zeros_(parameter)

    def forward(self, h: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        """Return features of the same shape.

        Parameters
        ----------
        h
            Features (B, channels, H'/scale, W'/scale).
        operator
            With ‖A‖ <= 1, on images of at most H' x W'.
        initial
            x_init (B, image_channels, H', W'), real, extended as by :func:`extended`.
        """
        z = self.f2i(F.pixel_shuffle(h, self.scale))
        seen = torch.cat([z, on_image(operator.gram, z, operator), initial], dim=1)
        return h + F.pixel_unshuffle(self.i2f(seen), self.scale)


def on_image(function: Callable[[Tensor], Tensor], z: Tensor, operator: LinearOperator) -> Tensor:
    """Apply a map of an operator's images to real channels (B, C, H', W') that may extend beyond the image.

    An operator with more channels than the network (coil map sets, a stack of slices) has its channels
    spread over the batch, see :func:`network_images`.
    """
    height, width = operator.image_shape[-2:]
    result = to_channels(function(operator_images(z[..., :height, :width], operator)))
    return extended(result.reshape(*z.shape[:2], height, width), z.shape[-2], z.shape[-1])


def operator_images(channels: Tensor, operator: LinearOperator) -> Tensor:
    """Return a network's real channels (B', C, H, W) as the operator's images; undoes :func:`network_images`."""
    images = channels.reshape(-1, real_channels(operator), *channels.shape[2:])
    return from_channels(images) if operator.image_dtype.is_complex else images


def network_images(images: Tensor, image_channels: int) -> Tensor:
    """Return an operator's images as real channels (B', image_channels, H, W), each group an image of its own."""
    channels = to_channels(images)
    return channels.reshape(-1, image_channels, *channels.shape[2:])


def real_channels(operator: LinearOperator) -> int:
    """Return the number of real channels of an operator's images."""
    return operator.image_shape[0] * (2 if operator.image_dtype.is_complex else 1)


def extended(x: Tensor, height: int, width: int) -> Tensor:
    """Return images continued to a larger size below and to the right, by reflection where they are large enough."""
    down, right = height - x.shape[-2], width - x.shape[-1]
    if not down and not right:
        return x
    mode = "reflect" if down < x.shape[-2] and right < x.shape[-1] else "replicate"
    return F.pad(x, (0, right, 0, down), mode=mode)
