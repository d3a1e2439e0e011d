"""What the user supplies beside the file: sampling mask, coil sensitivity maps, calibration k-space."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from medrecon.errors import InputError, UsageError
from medrecon.io.options import ReadOptions
from medrecon.io.readers.companions import fit_mask, read_calibration, read_maps, read_mask
from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack


def refuse_overrides(scan: Scan, options: ReadOptions) -> None:
    """Raise :class:`UsageError` for side files that a scan with its own forward operator cannot use."""
    named = _named(options)
    if named and not isinstance(scan.acquisition, CartesianAcquisition):
        raise UsageError(
            f"{scan.source} states its own forward operator ({type(scan.acquisition).__name__}); "
            f"{', '.join(named)} apply to Cartesian MRI only: leave them out"
        )


def with_overrides(scan: Scan, options: ReadOptions) -> Scan:
    """Scan in which ``options.mask``, ``maps`` and ``calibration`` take the place of what the file says."""
    named, acquisition = _named(options), scan.acquisition
    if not named or not isinstance(acquisition, CartesianAcquisition):
        return scan
    slices, coils = len(scan.measurements), scan.measurements.shape[0]
    if options.mask is not None:
        acquisition = replace(acquisition, mask=_mask(options.mask, scan.measurements, options.max_bytes))
    if options.maps is not None:
        acquisition = replace(acquisition, maps=read_maps(options, scan.measurements.shape, slices))
    if options.calibration is not None:
        calibration = read_calibration(options, coils, slices)
        stack = None if calibration is None else SliceStack.from_tensor(calibration)
        acquisition = replace(acquisition, calibration=stack)
    return replace(scan, acquisition=acquisition, notes=(*scan.notes, f"supplied by the user: {', '.join(named)}"))


def _named(options: ReadOptions) -> list[str]:
    given = {"--mask": options.mask, "--maps": options.maps, "--calibration": options.calibration}
    return [name for name, path in given.items() if path is not None]


def _mask(path: Path, stack: SliceStack, max_bytes: int | None) -> Tensor:
    """Mask as bool (1 or slices, H, W)."""
    _, rows, columns = stack.shape
    fitted = fit_mask(read_mask(path, max_bytes), rows, columns, path)
    if fitted.rows is not None or fitted.columns is not None or len(fitted.mask) not in (1, len(stack)):
        raise InputError(
            f"{path}: the sampling mask has shape {fitted.mask.shape}, but the k-space has {len(stack)} slices of "
            f"{rows} x {columns}: expected ({columns},), ({rows}, {columns}) or ({len(stack)}, {rows}, {columns})"
        )
    return torch.from_numpy(fitted.mask.copy())
