"""Read-out oversampling, taken away before the reconstruction instead of after it."""

from dataclasses import replace

import torch
from torch import Tensor

from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack
from medrecon.operators.fourier import centred_fft, centred_ifft


def central_rows(images: Tensor, rows: int) -> Tensor:
    """Return the rows (..., rows, W) of images (..., H, W) that start at (H - rows) // 2."""
    top = (images.shape[-2] - rows) // 2
    return images[..., top : top + rows, :]


def crop_readout(kspace: Tensor, rows: int) -> Tensor:
    """Return the k-space (..., rows, W) of the central rows of an image, from fully sampled read-outs (..., H, W).

    F C F⁻¹ along the read-out, C the crop of :func:`central_rows`: exact, for every read-out is complete.
    """
    if rows == kspace.shape[-2]:
        return kspace
    return centred_fft(central_rows(centred_ifft(kspace, (-2,)), rows), (-2,))


def without_readout_oversampling(scan: Scan) -> Scan:
    """Scan whose k-space has the rows of the reconstruction only: half the work, the same image.

    Scans that undersample the read-out too, that have a separate calibration scan, or no oversampling, stay as
    they are.
    """
    acquisition = scan.acquisition
    if not isinstance(acquisition, CartesianAcquisition) or acquisition.matrix is None:
        return scan
    coils, height, width = scan.measurements.shape
    rows = acquisition.matrix[0]
    if rows >= height or acquisition.calibration is not None or not _reads_whole_lines(scan, acquisition):
        return scan
    maps = acquisition.maps
    if maps is not None:
        maps = central_rows(maps, rows)
    stack = scan.measurements
    cropped = SliceStack(len(stack), (coils, rows, width), lambda index: crop_readout(stack[index], rows))
    mask = acquisition.mask
    if mask is not None and mask.ndim > 1:
        mask = mask[..., :1, :]
    return replace(scan, measurements=cropped, acquisition=replace(acquisition, mask=mask, maps=maps))


def _reads_whole_lines(scan: Scan, acquisition: CartesianAcquisition) -> bool:
    mask = acquisition.mask
    if mask is not None:
        return mask.ndim == 1 or bool((mask == mask[..., :1, :]).all())
    sampled = (scan.measurements[len(scan.measurements) // 2] != 0).any(0)
    return bool(torch.equal(sampled, sampled.any(0).expand_as(sampled)))
