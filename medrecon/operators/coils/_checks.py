"""Argument checks that the three methods share."""

import torch
from torch import Tensor

from medrecon.errors import InputError, NumericalError, UsageError


def check_image_shape(image_shape: tuple[int, int], crop: float, caller: str) -> None:
    """Raise UsageError unless the image has two positive sides and the crop lies in [0, 1)."""
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise UsageError(f"{caller}: image_shape must be two positive integers (H, W), got {tuple(image_shape)}")
    if not 0 <= crop < 1:
        raise UsageError(f"{caller}: crop must lie in [0, 1), got {crop}")


def check_calibration(
    calibration: Tensor, caller: str, *, smallest: int = 1, largest: tuple[int, int] | None = None
) -> None:
    """Raise InputError or NumericalError unless the calibration region can be used."""
    if calibration.ndim != 3 or not calibration.is_complex() or calibration.shape[0] == 0:
        raise InputError(
            f"{caller}: expected the complex calibration region of one slice (coils, h, w), got shape "
            f"{tuple(calibration.shape)} and dtype {calibration.dtype}"
        )
    height, width = calibration.shape[1:]
    if min(height, width) < smallest:
        raise InputError(
            f"{caller}: the calibration region is {height}x{width} samples, smaller than the window "
            f"({smallest}x{smallest}). Pass a smaller kernel_size or --maps FILE."
        )
    if largest is not None and (height > largest[0] or width > largest[1]):
        raise InputError(
            f"{caller}: the calibration region ({height}x{width}) is larger than the image "
            f"({largest[0]}x{largest[1]}); cut it with find_calibration_region"
        )
    peak = calibration.detach().abs().amax()
    if not bool(torch.isfinite(peak)):
        raise NumericalError(f"{caller}: the calibration region holds NaN or Inf; check the reader and the raw file")
    if not bool(peak > 0):
        raise NumericalError(f"{caller}: the calibration region is zero everywhere; there is nothing to calibrate")
