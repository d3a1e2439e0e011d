"""The centred unitary Fourier transform without a single shift.

For one axis of N samples with centre c = N // 2, the centred transform
``fftshift(fft(ifftshift(x)))`` / sqrt(N) equals, with the ramp r[n] = exp(2πi c n / N),

    F_c x = g · r · FFT(r · x),     g = exp(-2πi c² / N),

because (k - c)(n - c) = k n - c k - c n + c². For even N the ramp is (-1)^n and g is real, so it
costs a sign; for odd N it is complex. An operator multiplies r into what it multiplies anyway.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def centring_ramp(shape: Sequence[int], *, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Return r over a grid of ``shape``: real (±1) where all sizes are even, else complex."""
    ramp = torch.ones((), dtype=torch.complex128)
    for size in shape:
        # the phase is reduced modulo one turn in integers: exact at any size
        turns = (torch.arange(size) * (size // 2)) % size
        ramp = ramp[..., None] * torch.polar(torch.ones(size, dtype=torch.float64), 2 * math.pi * turns.double() / size)
    if all(size % 2 == 0 for size in shape):
        return ramp.real.round().to(dtype.to_real())
    return ramp.to(dtype)


def centring_constant(shape: Sequence[int]) -> complex:
    """Return g, the product over the axes; ±1 where all sizes are even."""
    turns = sum(((size // 2) ** 2 % size) / size for size in shape)
    value = complex(math.cos(2 * math.pi * turns), -math.sin(2 * math.pi * turns))
    return complex(round(value.real), 0) if all(size % 2 == 0 for size in shape) else value


def centred_fft(x: Tensor, axes: Sequence[int] = (-2, -1)) -> Tensor:
    """Return the centred unitary Fourier transform of x: image to k-space, zero frequency at N // 2."""
    shifted = torch.fft.ifftshift(x, dim=axes)
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=axes, norm="ortho"), dim=axes)


def centred_ifft(y: Tensor, axes: Sequence[int] = (-2, -1)) -> Tensor:
    """Return the inverse of :func:`centred_fft`: k-space to image."""
    shifted = torch.fft.ifftshift(y, dim=axes)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), dim=axes)
