"""From an acquisition to its operator: the sampling mask and the coil sensitivities of one slice."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from medrecon.errors import InputError, UsageError
from medrecon.io.scan import CartesianAcquisition
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.coils import LEAST_CALIBRATION, MapMethod, estimate_maps, find_calibration_region

_logger = logging.getLogger("medrecon")

_STRAY = 0.01  # of the samples of a line may be zero by chance where the mask is read off the data


@dataclass(frozen=True)
class SliceOperator:
    """Operator of one slice, its data and what was found on the way.

    Parameters
    ----------
    operator
        Multi-coil if maps were known or could be estimated, single-coil for one coil.
    measurements
        k-space (1, coils, H, W), zero where the mask is.
    maps
        Where the maps come from, e.g. "espirit, 1 set, calibration 24x24".
    """

    operator: CartesianMRI
    measurements: Tensor
    maps: str


def sampling_mask(kspace: Tensor, acquisition: CartesianAcquisition, index: int) -> Tensor:
    """Return the mask (H, W) of slice ``index``: as the scan states it, else read off the exact zeros of k-space."""
    height, width = kspace.shape[-2:]
    if acquisition.mask is None:
        return (kspace != 0).any(0)
    mask = acquisition.mask.to(kspace.device)
    if mask.ndim == 3:
        mask = mask[index if mask.shape[0] > 1 else 0]
    return mask.expand(height, width)


def acceleration(mask: Tensor) -> float:
    """Return R, the number of samples of the grid over the number acquired."""
    return mask.numel() / max(int((mask > 0).sum()), 1)


def is_fully_sampled(mask: Tensor) -> bool:
    """Tell whether the acquired rectangle of k-space was sampled without gaps.

    Zero-filled borders (a smaller acquired matrix, partial Fourier) are no undersampling that a
    parallel reconstruction could undo, and neither are single samples that happen to be exactly zero
    where the mask is read off the data.
    """
    inside = _acquired_rectangle(mask)
    return inside.numel() > 0 and float(inside.mean()) > 1 - _STRAY


def sampling_pattern(mask: Tensor) -> Literal["lines", "points"]:
    """Return "lines" where, of the acquired rectangle, whole lines along one axis were acquired, else "points"."""
    inside = _acquired_rectangle(mask)
    whole = [((share < _STRAY) | (share > 1 - _STRAY)).all() for share in (inside.mean(0), inside.mean(1))]
    return "lines" if any(whole) else "points"


def single_coil_operator(kspace: Tensor, mask: Tensor) -> CartesianMRI:
    """Return M F without coil sensitivities: what each coil measures of its own image."""
    return CartesianMRI(mask, image_shape=tuple(kspace.shape[-2:]))


def slice_operator(
    kspace: Tensor, acquisition: CartesianAcquisition, index: int, *, method: MapMethod = "espirit"
) -> SliceOperator:
    """Build the operator of slice ``index`` from its k-space (coils, H, W).

    Maps are the scan's own, else estimated by ``method`` from the separate calibration scan or from
    the fully sampled centre that the data are found to have. One coil needs none.
    """
    if method not in get_args(MapMethod):
        raise UsageError(f"maps: expected one of {', '.join(get_args(MapMethod))} or a file, got {method!r}")
    mask = sampling_mask(kspace, acquisition, index)
    data = (kspace * (mask > 0))[None]
    if acquisition.maps is not None:
        maps = acquisition.maps[index if acquisition.maps.shape[0] > 1 else 0].to(kspace.device)
        return SliceOperator(CartesianMRI(mask, maps), data, f"given, {_sets(maps)}")
    if kspace.shape[0] == 1:
        return SliceOperator(single_coil_operator(kspace, mask), data, "none (one coil)")
    calibration = _calibration(kspace, mask, acquisition, index)
    maps = _estimate(calibration, tuple(kspace.shape[-2:]), method)
    source = "x".join(map(str, calibration.shape[1:]))
    return SliceOperator(CartesianMRI(mask, maps), data, f"{method}, {_sets(maps)}, calibration {source}")


def _acquired_rectangle(mask: Tensor) -> Tensor:
    """Return 1 where a sample was acquired, else 0, in the smallest rectangle around all of them."""
    rows, columns = (mask > 0).any(1).nonzero(), (mask > 0).any(0).nonzero()
    if not len(rows):
        return mask.new_zeros((0, 0), dtype=torch.float32)
    return (mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] > 0).float()


# With fewer calibration lines kernels get smaller.
_GOOD_CALIBRATION = 12


def _calibration(kspace: Tensor, mask: Tensor, acquisition: CartesianAcquisition, index: int) -> Tensor:
    if acquisition.calibration is None:
        return find_calibration_region(kspace, mask, min_size=LEAST_CALIBRATION).extract(kspace)
    stack = acquisition.calibration
    separate = stack[index if len(stack) > 1 else 0].to(kspace.device)
    if separate.shape[0] != kspace.shape[0]:
        raise InputError(
            f"the calibration scan has {separate.shape[0]} coils, the measurements {kspace.shape[0]}; "
            "both need the same coils in the same order"
        )
    return find_calibration_region(separate, min_size=LEAST_CALIBRATION).extract(separate)


def _estimate(calibration: Tensor, shape: tuple[int, ...], method: MapMethod) -> Tensor:
    grid = (shape[0], shape[1])
    smallest = min(calibration.shape[1:])
    if smallest < _GOOD_CALIBRATION:
        _logger.warning(
            "only %d calibration lines: coil sensitivities from so few may be inaccurate; --maps FILE or --calibration "
            "FILE would be better",
            smallest,
        )
    return estimate_maps(calibration, grid, method, num_sets="auto")


def _sets(maps: Tensor) -> str:
    sets = maps.shape[-4] if maps.ndim >= 4 else 1
    return f"{sets} set{'s' if sets > 1 else ''}"


def root_sum_of_squares(images: Tensor, dim: int = 0) -> Tensor:
    """Return sqrt(Σ |x|²) over coils or map sets; real."""
    return torch.linalg.vector_norm(images, dim=dim)
