"""3-D scans as stacks of 2-D problems, and read-out oversampling: Fourier transforms along one full axis."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.operators.fourier import centred_fft, centred_ifft


def to_hybrid(volume: Tensor, axis: int = 0) -> Tensor:
    """Turn k-space of a volume into independent 2-D k-spaces along a fully sampled axis.

    The centred unitary inverse Fourier transform along ``axis`` leaves noise level and energy as they
    are; ``axis`` becomes the first one and counts positions in space, image centre at N // 2.

    Parameters
    ----------
    volume
        Complex k-space, e.g. (read-out, coils, kz, ky).
    axis
        The fully sampled axis, see :func:`full_axis`.
    """
    return centred_ifft(volume, (axis,)).movedim(axis, 0).contiguous()


def full_axis(mask: NDArray[np.bool_], preference: tuple[int, ...]) -> int | None:
    """Find an axis along which every acquired line is complete; None where there is none.

    Planes at its ends that hold nothing at all (a partial echo, zero-filled) do not count against an
    axis as long as half of it is measured in one piece: the transform then gives the zero-filled image,
    as it would in 2-D.

    Parameters
    ----------
    mask
        Which samples of the volume were acquired.
    preference
        The axes to try, in this order.
    """
    for axis in preference:
        planes = np.moveaxis(mask, axis, 0)
        filled = np.flatnonzero(planes.any(axis=tuple(range(1, planes.ndim))))
        if not len(filled) or 2 * len(filled) < len(planes) or filled[-1] - filled[0] >= len(filled):
            continue
        if bool((planes[filled] == planes[filled[0]]).all()):
            return axis
    return None


def crop_in_space(kspace: Tensor, axis: int, size: int) -> Tensor:
    """Remove oversampling along a fully sampled axis: the k-space of the image's centre crop.

    The image centre goes from sample N // 2 to ``size // 2``; under unitary transforms the image keeps
    its values. Where samples along ``axis`` are missing the result is *not* a sampling of the cropped
    image's k-space, so use it on complete lines only.
    """
    full = kspace.shape[axis]
    if not 0 < size <= full:
        raise ValueError(f"crop_in_space: cannot crop {full} samples to {size}")
    if size == full:
        return kspace
    return centred_fft(centred_ifft(kspace, (axis,)).narrow(axis, full // 2 - size // 2, size), (axis,))
