"""Image quality by fastMRI's definitions, per volume.

Both volumes are first cropped to the centre (W, W), W the last axis of the target, as fastMRI's
``evaluate.py`` does; the data range L is the maximum of the cropped target *volume*. Values are
comparable with published ones only under these definitions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError, NumericalError

Volume = NDArray[Any]


def nmse(target: Volume, image: Volume) -> float:
    """Return the normalised squared error ‖target - image‖² / ‖target‖² of a volume."""
    return float(np.linalg.norm(target - image) ** 2 / np.linalg.norm(target) ** 2)


def psnr(target: Volume, image: Volume) -> float:
    """Return 10 log10(L² / mean squared error) in dB, L = max(target); infinite for equal volumes."""
    error = float(np.mean((target - image) ** 2, dtype=np.float64))
    return 10 * float(np.log10(float(target.max()) ** 2 / error)) if error else float("inf")


def ssim(target: Volume, image: Volume) -> float:
    """Return the structural similarity, mean over the slices of a volume (slices, rows, columns).

    Uniform 7 x 7 window, K1 = 0.01, K2 = 0.03, sample covariance, data range max(target) over the
    volume, borders left out (Wang et al., IEEE Trans. Image Process. 13:600, 2004).
    """
    from skimage.metrics import structural_similarity

    if min(target.shape[1:]) < 7:
        raise InputError(f"SSIM needs slices of at least 7 x 7 pixels, got {target.shape[1]} x {target.shape[2]}")
    data_range = float(target.max())
    slices = [structural_similarity(t, i, data_range=data_range) for t, i in zip(target, image, strict=True)]
    return float(np.mean(slices))


METRICS: Mapping[str, Callable[[Volume, Volume], float]] = {"nmse": nmse, "psnr": psnr, "ssim": ssim}


def over_volumes(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over volumes, and with ``_2std`` twice the standard deviation of several."""
    summary: dict[str, float] = {}
    for name in METRICS if scores else ():
        values = [score[name] for score in scores]
        summary[name] = float(np.mean(values))
        if len(values) > 1:
            summary[f"{name}_2std"] = 2 * float(np.std(values))
    return summary


def centre_crop(volume: Volume, rows: int, columns: int) -> Volume:
    """Return the centre (rows, columns) of every slice; sizes larger than the slice keep it."""
    top = max(volume.shape[-2] - rows, 0) // 2
    left = max(volume.shape[-1] - columns, 0) // 2
    return volume[..., top : top + rows, left : left + columns]


def evaluate_volume(target: Volume, image: Volume, names: Iterable[str] = tuple(METRICS)) -> dict[str, float]:
    """Return ``{"nmse": …, "psnr": …, "ssim": …}`` of a volume (slices, rows, columns) after the centre crop.

    Parameters
    ----------
    target, image
        Reference and reconstruction.
    names
        Which metrics.

    Raises
    ------
    InputError
        Where the volumes do not match, before the crop in slices or after it in size.
    NumericalError
        Where either holds NaN or Inf, or the target is empty.
    """
    size = target.shape[-1]
    target, image = centre_crop(target, size, size), centre_crop(image, size, size)
    if target.shape != image.shape:
        raise InputError(
            f"the volumes do not match: target {target.shape}, image {image.shape} (slices, rows, columns, after the "
            f"centre crop to {size} x {size}); a reconstruction of some --slices needs the same slices of its reference"
        )
    for name, volume in (("target", target), ("image", image)):
        if not np.isfinite(volume).all():
            raise NumericalError(f"the {name} holds {int((~np.isfinite(volume)).sum())} NaN or Inf")
    if not target.any():
        raise NumericalError("the target is zero everywhere")
    return {name: METRICS[name](target, image) for name in names}
