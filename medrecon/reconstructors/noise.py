"""How noisy measurements are, estimated from them alone."""

import torch
from torch import Tensor

from medrecon.operators.ct.noise import white_noise
from medrecon.operators.fourier import centred_ifft
from medrecon.reconstructors.mri import root_sum_of_squares

_OUTER = 0.05
_FEWEST = 64
_RAYLEIGH = 1.1774  # median magnitude of complex noise of standard deviation 1 per part


def kspace_noise(kspace: Tensor, mask: Tensor) -> float:
    """Return the standard deviation of the noise of k-space as a fraction of the brightest pixel it shows.

    It is read off the acquired samples farthest from the centre, where little else is. What signal there is counts
    as noise, so the estimate is an upper one. Noise without an image gives 0.1 and more.

    Parameters
    ----------
    kspace
        (coils, H, W), centred.
    mask
        (H, W), above 0 where samples were acquired; of those the ones that are exactly zero are left out.
    """
    peak = kspace.abs().max()
    kspace = kspace * (mask > 0) / torch.where(peak > 0, peak, 1)  # squares of small raw data would vanish
    acquired = (kspace != 0).any(0)
    height, width = kspace.shape[-2:]
    down = (torch.arange(height, device=kspace.device) - height // 2) / (height / 2)
    across = (torch.arange(width, device=kspace.device) - width // 2) / (width / 2)
    distance = torch.where(acquired, down[:, None].square() + across.square(), -1.0)
    count = int(acquired.sum())
    if count == 0:
        return 0.0
    edge = distance.flatten().topk(min(count, max(_FEWEST, round(_OUTER * count)))).values[-1]
    outer = kspace[:, distance >= edge].abs()
    sigma = outer[outer > 0].median() / _RAYLEIGH
    return float(sigma / root_sum_of_squares(centred_ifft(kspace)).max())


def sinogram_noise(sinogram: Tensor) -> float:
    """Return the standard deviation of the noise of a sinogram (..., bins) as a fraction of its largest value.

    It is read off the second differences along the detector, to which smooth objects contribute little.
    """
    if sinogram.shape[-1] < 3:
        return 0.0
    second = sinogram.diff(n=2, dim=-1).double()
    second = second[second != 0]  # beside the object there may be exact zeros
    peak = float(sinogram.abs().max())
    if peak == 0 or second.numel() == 0:
        return 0.0
    return float(white_noise(second.abs())) / peak
