"""Smooth low-resolution coil images from the calibration region."""

import torch
from torch import Tensor


def windowed_coil_images(calibration: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """Transform the Hann-windowed calibration region to the image grid: (coils, h, w) -> (coils, H, W).

    Up to a phase that all coils share (the region's offset from N//2), this is the centred inverse transform of the
    zero-padded region; its scale is arbitrary.
    """
    images = calibration / calibration.abs().amax()
    for axis, size in zip((-2, -1), image_shape, strict=True):
        length = images.shape[axis]
        index = torch.arange(length, device=images.device, dtype=torch.float64)
        # Nowhere zero, so no sample is wasted; the window keeps the ringing of sharp edges out of the maps.
        window = torch.sin(torch.pi * (index + 0.5) / length).square()
        position = torch.arange(size, device=images.device, dtype=torch.float64) - size // 2
        angle = 2 * torch.pi / size * torch.outer(position, index - length // 2)
        transform = (torch.polar(torch.ones_like(angle), angle) * window).to(images.dtype)
        images = torch.tensordot(images, transform, dims=([axis], [1])).movedim(-1, axis)
    return images.contiguous()


def support(magnitude: Tensor, crop: float) -> Tensor:
    """Mark the pixels whose magnitude exceeds ``crop`` times the maximum, never a pixel of magnitude zero."""
    return magnitude > crop * magnitude.amax()
