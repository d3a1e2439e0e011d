"""From sorted ISMRMRD acquisitions to k-space slices, mask, calibration and geometry."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import InputError, NumericalError
from medrecon.io.geometry import Geometry
from medrecon.io.hdf5 import IsmrmrdAcquisitions
from medrecon.io.hybrid import crop_in_space, to_hybrid
from medrecon.io.mrd_header import Encoding
from medrecon.io.options import ReadOptions
from medrecon.io.readers.mrd_geometry import Placement, place_slices
from medrecon.io.readers.mrd_lines import Grid, Lines, fill_grid, full_block
from medrecon.io.scan import CartesianAcquisition, SliceStack
from medrecon.operators.prewhitening import noise_covariance, prewhiten, whitening_matrix

_CALIBRATION_LINES = 4  # fewer tell nothing about the coils


@dataclass(frozen=True)
class Assembled:
    """What the acquisitions of a scan amount to; the fields are those of :class:`medrecon.io.Scan`."""

    measurements: SliceStack
    acquisition: CartesianAcquisition
    geometry: Geometry
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Sizes:
    """Encoded samples, image voxels and voxel size in mm along x (read-out), y and z."""

    encoded: tuple[int, int, int]
    image: tuple[int, int, int]
    spacing: tuple[float, float, float]


def assemble(
    table: IsmrmrdAcquisitions, lines: Lines, encoding: Encoding, options: ReadOptions, path: Path
) -> Assembled:
    """Grid, prewhiten, remove oversampling, split a volume into slices, and place it all in space."""
    notes: list[str] = []
    rows = np.sort(np.concatenate([lines.imaging, lines.calibration])) if lines.embedded else lines.imaging
    sizes = _sizes(encoding, notes)
    placement = place_slices(table.heads[lines.imaging], sizes.spacing[2])
    notes.extend(placement.notes)
    grid = _fill(table, rows, encoding, placement, options, path)
    notes.extend(grid.notes)
    volume = grid.kspace.shape[1] > 1
    if volume and len(placement.numbers) > 1:
        raise InputError(
            f"{path}: {len(placement.numbers)} slabs of a 3-D scan in one file are not supported; store one slab a file"
        )
    whitener = _whitener(table, lines, grid.kspace.shape[3], notes)
    width = grid.kspace.shape[4]
    complete = bool((grid.measured.any(axis=-1) == grid.measured.all(axis=-1)).all())
    if not complete:
        notes.append("partial echoes: samples that are missing along the read-out count as not acquired")
    kx = sizes.image[0] if complete or volume else width  # what is left of the read-out
    if kx < width:
        notes.append(f"read-out oversampling removed: {width} to {kx} samples")
    kspace = _shape(grid.kspace, kx, volume=volume, whitener=whitener)
    calibration = _calibration(table, lines, encoding, placement, options, path, notes)
    block = None
    if calibration is not None:
        block = SliceStack.from_tensor(_shape(calibration, kx, volume=volume, whitener=whitener))
    _, height, columns = kspace.shape[1:]
    matrix = (sizes.image[2] if volume else sizes.image[0], sizes.image[1])
    return Assembled(
        measurements=SliceStack.from_tensor(kspace),
        acquisition=CartesianAcquisition(
            mask=torch.from_numpy(_mask(grid.measured, volume=volume, complete=complete)),
            calibration=block,
            matrix=None if matrix == (height, columns) else matrix,
        ),
        geometry=_geometry(placement, sizes, (height, columns), kx, matrix, len(kspace), volume=volume),
        notes=tuple(notes),
    )


def _fill(
    table: IsmrmrdAcquisitions,
    rows: NDArray[np.intp],
    encoding: Encoding,
    placement: Placement,
    options: ReadOptions,
    path: Path,
) -> Grid:
    known = rows[np.isin(table.heads["idx"]["slice"][rows], placement.numbers)]
    return fill_grid(table, known, encoding, placement.numbers, options.repetitions, path, max_bytes=options.max_bytes)


def _sizes(encoding: Encoding, notes: list[str]) -> _Sizes:
    """Give the image the voxels of the encoded matrix and the field of view of the reconstruction."""
    image, spacing = [], []
    encoded, recon = encoding.encoded, encoding.recon
    axes = zip(encoded.matrix, encoded.fov, recon.matrix, recon.fov, strict=True)
    for name, (count, full, wanted, part) in zip("xyz", axes, strict=True):
        if full > 0 and part > 0:
            image.append(max(1, min(count, round(count * part / full))))
        else:
            image.append(min(count, wanted))
        size = full / count if full > 0 else part / wanted
        if size <= 0:
            notes.append(f"the header gives no field of view along {name}: voxels of 1 mm assumed")
        spacing.append(size if size > 0 else 1.0)
        if name != "z" and full > 0 and part > 0 and abs(part / wanted - size) > 0.01 * size:
            notes.append(
                f"the header asks for voxels of {part / wanted:.3g} mm along {name}, but {size:.3g} mm were measured:"
                " the image is not interpolated"
            )
    if encoded.matrix[2] == 1 and recon.matrix[2] == 1 and recon.fov[2] > 0:
        spacing[2] = recon.fov[2]
    return _Sizes(encoded.matrix, (image[0], image[1], image[2]), (spacing[0], spacing[1], spacing[2]))


def _whitener(table: IsmrmrdAcquisitions, lines: Lines, coils: int, notes: list[str]) -> Tensor | None:
    """Whitener from the noise scan, scaled to keep the mean noise variance; None without a usable one."""
    rows = [row for row in lines.noise if int(table.heads["active_channels"][row]) == coils]
    if not len(lines.noise) or coils == 1:
        return None
    samples = [table.samples[table.offsets[row] : table.offsets[row + 1]].reshape(coils, -1).T for row in rows]
    try:
        noise = torch.from_numpy(np.concatenate([np.empty((0, coils), np.complex64), *samples]))
        covariance = noise_covariance(noise)
        whitener = whitening_matrix(covariance)
    except NumericalError as error:
        notes.append(f"the noise scan cannot be used, coils are not prewhitened ({error})")
        return None
    notes.append(f"coils prewhitened with {len(noise)} noise samples")
    return whitener * covariance.diagonal().real.mean().sqrt()


def _shape(grid: NDArray[np.complex64], kx: int, *, volume: bool, whitener: Tensor | None) -> Tensor:
    """Turn (slices, kz, ky, coils, kx) into slices (slices, coils, kx, ky), or (x, coils, kz, ky) of a volume."""
    kspace = torch.from_numpy(grid)
    if volume:
        width = kspace.shape[4]
        hybrid = to_hybrid(kspace[0], 3).narrow(0, width // 2 - kx // 2, kx)
        kspace = hybrid.permute(0, 3, 1, 2)
    else:
        kspace = crop_in_space(kspace[:, 0].permute(0, 2, 3, 1), 2, kx)
    return (kspace if whitener is None else prewhiten(kspace, whitener)).contiguous()


def _mask(measured: NDArray[np.bool_], *, volume: bool, complete: bool) -> NDArray[np.bool_]:
    if volume:
        return np.asarray(measured.any(axis=-1))
    planes = measured[:, 0]
    return np.asarray(planes.any(axis=-1))[:, None] if complete else np.ascontiguousarray(planes.swapaxes(1, 2))


def _calibration(
    table: IsmrmrdAcquisitions,
    lines: Lines,
    encoding: Encoding,
    placement: Placement,
    options: ReadOptions,
    path: Path,
    notes: list[str],
) -> NDArray[np.complex64] | None:
    """Separately measured calibration lines on their grid, cut to the block without gaps."""
    if lines.embedded or not len(lines.calibration):
        return None
    present = np.unique(table.heads["idx"]["slice"][lines.calibration])
    if not np.isin(placement.numbers, present).all():
        notes.append("the separate calibration lines do not cover all slices and were left out")
        return None
    if table.heads["active_channels"][lines.calibration[0]] != table.heads["active_channels"][lines.imaging[0]]:
        notes.append("the separate calibration lines have another number of coils and were left out")
        return None
    grid = _fill(table, lines.calibration, encoding, placement, options, path)
    block = full_block(np.asarray(_mask(grid.measured, volume=True, complete=True).all(axis=0)))
    if block is None or block[1].stop - block[1].start < _CALIBRATION_LINES:
        notes.append("the separate calibration lines make no gapless block and were left out")
        return None
    return np.ascontiguousarray(grid.kspace[:, block[0], block[1]])


def _geometry(
    placement: Placement,
    sizes: _Sizes,
    grid: tuple[int, int],
    kx: int,
    matrix: tuple[int, int],
    count: int,
    *,
    volume: bool,
) -> Geometry:
    """Place the image centre (sample N // 2 of the k-space grid) at the position in the header."""
    dx, dy, _ = sizes.spacing
    (height, columns), (rows, wide) = grid, matrix
    row_centre = height // 2 - (height - rows) // 2
    column_centre = columns // 2 - (columns - wide) // 2
    read, phase = placement.read, placement.phase
    if not volume:
        centre = (column_centre, row_centre, 0)
        return placement.geometry((phase, dy), (read, dx), placement.step, centre, (count, rows, wide))
    dz = float(np.linalg.norm(placement.step))
    centre = (column_centre, row_centre, kx // 2)
    return placement.geometry((phase, dy), (placement.step / dz, dz), read * dx, centre, (count, rows, wide))
