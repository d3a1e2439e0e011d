"""The ramp filter of filtered back-projection, in the spatial domain, with its windows."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from medrecon.errors import UsageError

Window = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]
WINDOWS: tuple[str, ...] = get_args(Window)


def ramp_filter(size: int, pitch: float, window: Window = "ram-lak", *, fan_angle: float = 0.0) -> Tensor:
    r"""Return the frequency response of the windowed ramp filter, (size // 2 + 1,) float64, for ``rfft``.

    The filter is the Fourier transform of the band-limited kernel, h[0] = 1/(4 d²), h[odd n] = -1/(π n d)²,
    h[even n] = 0 with the pitch d, times d (Kak and Slaney, Principles of Computerized Tomographic
    Imaging, 1988, eq. 3.61). Sampling |f| instead would set the mean of the image to zero. Windows of
    f in cycles per sample: 1, sinc f, cos π f, 0.54 + 0.46 cos 2πf, 0.5 + 0.5 cos 2πf.

    Parameters
    ----------
    size
        Length of the transform, at least twice the number of bins.
    pitch
        Distance of the bins.
    window
        ``ram-lak`` is none at all; the others are smoother, ``hann`` the smoothest.
    fan_angle
        Radians from bin to bin where the bins are equidistant in the fan angle γ: the kernel is then
        multiplied by (γ / sin γ)² (Kak and Slaney, eq. 3.137).

    Examples
    --------
    >>> ramp_filter(8, 1.0, "hann")[-1].item()
    0.0
    """
    if window not in WINDOWS:
        raise UsageError(f"filter: expected one of {', '.join(WINDOWS)}, got {window!r}")
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    kernel = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp_min(1) * pitch) ** 2, 0.0)
    kernel[0] = 1 / (4 * pitch**2)
    if fan_angle:
        gamma = n * fan_angle
        kernel = torch.where((n > 0) & (gamma < math.pi / 2), kernel * (gamma / torch.sin(gamma)) ** 2, kernel)
    response = torch.fft.rfft(kernel).real * pitch
    f = torch.arange(size // 2 + 1, dtype=torch.float64) / size
    match window:
        case "shepp-logan":
            response = response * torch.sinc(f)
        case "cosine":
            response = response * torch.cos(math.pi * f)
        case "hamming":
            response = response * (0.54 + 0.46 * torch.cos(2 * math.pi * f))
        case "hann":
            response = response * (0.5 + 0.5 * torch.cos(2 * math.pi * f))
    return response


def filter_sinogram(
    y: Tensor, pitch: float, window: Window = "ram-lak", *, fan_angle: float = 0.0, oversampling: int = 1
) -> Tensor:
    """Return sinograms (..., bins · oversampling) convolved with the ramp filter along the bins, zero outside.

    Between the bins the result is interpolated by the Fourier series that filters it: value k · oversampling
    is that at bin k.
    """
    bins = y.shape[-1]
    size = max(64, 2 ** math.ceil(math.log2(2 * bins)))
    response = ramp_filter(size, pitch, window, fan_angle=fan_angle).to(y)
    fine = oversampling * size
    return torch.fft.irfft(torch.fft.rfft(y, size) * (oversampling * response), fine)[..., : oversampling * bins]
