"""Joseph's parallel-beam projector in plain torch: the oracle of the fast ones, and their fall-back.

Lengths are pixels. A view is (cos t, sin t, u0): bin k measures along X cos t + Y sin t = u0 + k · pitch,
with X to the right and Y upwards from the middle of the image. A view with |cos| >= |sin| meets every
row once, at column q, and interpolates that row linearly there; the others do the same with columns
(Joseph, IEEE Trans. Med. Imaging 1:192, 1982). Both directions are written as gathers (a pull):
a pixel at u = X cos t + Y sin t sees bin k with the weight max(0, 1 - |u - u_k|/m)/m, m = max(|cos|, |sin|).
"""

import math

import torch
from torch import Tensor


def project(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    """Return the sinograms (N, views, count) of images (N, H, W).

    Parameters
    ----------
    image
        (N, H, W), float32 or float64.
    views
        (views, 3) float64.
    pitch
        Distance of the bins in pixels.
    count
        Number of bins.
    """
    height, width = image.shape[1:]
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    result = image.new_zeros((image.shape[0], views.shape[0], count))
    bins = torch.arange(count, dtype=torch.float64, device=image.device) * pitch
    x = torch.arange(width, dtype=torch.float64, device=image.device) - (width - 1) / 2
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64, device=image.device)
    for index, (c, s, u0) in enumerate(views.tolist()):
        u = u0 + bins
        if abs(c) >= abs(s):  # position in every row, (H, count)
            q = (u - y[:, None] * s) / c + (width - 1) / 2
            lines, size = padded[:, 1:-1], width
        else:  # position in every column, (W, count)
            q = (height - 1) / 2 - (u - x[:, None] * c) / s
            lines, size = padded[:, :, 1:-1].mT, height
        q = q.clamp(-1, size)
        left = q.floor().clamp(-1, size - 1)
        weight = (q - left).to(image.dtype)
        at = (left.long() + 1).expand(image.shape[0], -1, -1)
        sampled = lines.gather(2, at) * (1 - weight) + lines.gather(2, at + 1) * weight
        result[:, index] = sampled.sum(1) / max(abs(c), abs(s))
    return result


def backproject(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    """Return the images (N, height, width) of sinograms (N, views, bins): the transpose of :func:`project`."""
    number, _, count = sinogram.shape
    device = sinogram.device
    x = torch.arange(width, dtype=torch.float64, device=device) - (width - 1) / 2
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64, device=device)
    result = sinogram.new_zeros((number, height * width))
    for index, (c, s, u0) in enumerate(views.tolist()):
        m = max(abs(c), abs(s))
        at = ((x * c + y[:, None] * s - u0) / pitch).flatten()  # of every pixel, in bins
        reach = m / pitch
        first = (at - reach).ceil().long()
        for tap in range(math.floor(2 * reach) + 1):
            k = first + tap
            weight = (1 - (at - k).abs() / reach).clamp_min(0) / m
            weight = torch.where((k >= 0) & (k < count), weight, 0).to(sinogram.dtype)
            result += sinogram[:, index].index_select(1, k.clamp(0, count - 1)) * weight
    return result.view(number, height, width)
