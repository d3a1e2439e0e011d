"""Raw data for MONAI's ``LoadImage``: k-space and sinograms of every format that medrecon reads."""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import EmptyDataError, InputError, MedreconError, UsageError
from medrecon.io import ReadOptions, Scan, SliceStack, read_scan
from medrecon.io.scan import CartesianAcquisition
from medrecon.operators.ct.base import XRayTransform
from medrecon.pipelines.metadata import scan_meta

FileNames = Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
Kind = Literal["k-space", "sinograms"]

_GENERAL = "arrays"
_logger = logging.getLogger("medrecon")


class _ScanReader(ImageReader):
    """What both readers do: claim files by content, read some slices, describe them."""

    kind: Kind
    dtype: torch.dtype

    def __init__(self, options: ReadOptions, slices: range | None) -> None:
        if slices is not None and (not slices or slices.start < 0 or slices.step < 1):
            raise UsageError(f"{type(self).__name__}: slices must be a rising range such as range(0, 10), got {slices}")
        self.options = options
        self.slices = slices

    def verify_suffix(self, filename: FileNames) -> bool:
        """Tell whether all files hold this kind of data by their content, whatever their names.

        Plain arrays (.npy, .mat, HDF5 of unknown layout) are claimed only where ``axes`` say what they are, folders
        never: they are for whoever names this reader.
        """
        names = _names(filename)
        return bool(names) and all(_kind_of(name, self.options) == self.kind for name in names)

    def read(self, data: FileNames) -> list[Path]:
        """Take the names; files are opened by :meth:`get_data`.

        ``LoadImage`` asks other readers after one whose ``read`` fails and reports what the last one said; errors of
        :meth:`get_data` reach the user as they are.
        """
        return [Path(name) for name in _names(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the slices: the array (channels, slices, …) and its metadata, see :func:`metadata.scan_meta`.

        Raises
        ------
        InputError
            Where the file cannot be read or holds other data.
        NumericalError
            Where it holds NaN or Inf (see ``nonfinite``) or nothing at all.
        UsageError
            For several files: measurements are no channels of each other, load one file an item.
        """
        if len(img) != 1:
            raise UsageError(
                f"{type(self).__name__}: expected one file an item, got {len(img)}; their {self.kind} do not belong "
                "into one array, make a list of items with one file each"
            )
        scan = read_scan(img[0], self.options)
        found = _kind(scan)
        if found != self.kind:
            other = {"k-space": "KSpaceReader", "sinograms": "SinogramReader"}.get(found or "")
            hint = f"read it with {other}" if other else "read it with medrecon.io.read_scan"
            raise InputError(
                f"{img[0]}: expected {self.kind}, the file ({scan.format}) holds {found or 'others'}; {hint}"
            )
        count = len(scan.measurements)
        slices = range(count) if self.slices is None else self.slices
        if slices[-1] >= count:
            raise UsageError(f"{img[0]}: slices {slices} do not lie in this scan of {count}")
        array, empty = _read_slices(scan.measurements, slices, self.dtype)
        if empty:
            _logger.warning("%s: slices %s hold no data at all", img[0], ", ".join(map(str, empty)))
        values = array.numpy()
        return values, {**scan_meta(scan, slices), "spatial_shape": np.array(values.shape[1:])}


class KSpaceReader(_ScanReader):
    """Cartesian k-space (fastMRI, ISMRMRD, BART, arrays with named axes) as complex64 (coils, slices, H, W).

    Use it with ``LoadImaged(keys, reader="KSpaceReader", dtype=np.complex64, ensure_channel_first=True)`` after
    :func:`medrecon.pipelines.register`; without ``dtype`` MONAI drops the imaginary part. Sizes and order of the
    axes are those of the measurement; ``affine`` is that of the image :class:`~medrecon.pipelines.Reconstructd`
    makes of it, (column, row, slice) to RAS mm. MONAI's spatial transforms are for that image.

    Items that are batched together need the same metadata; header fields that only some files have are left out
    by ``LoadImaged(..., prune_meta_pattern="header_.*")``.

    Parameters
    ----------
    slices
        Which slices to read, e.g. ``range(10, 20)``; the others stay on disk. None for all.
    nonfinite, key, axes, mask, maps, calibration, repetitions, half_fov_shift, max_bytes
        As in :class:`medrecon.io.ReadOptions`. Maps and calibration travel in the metadata.
    """

    kind: Kind = "k-space"
    dtype = torch.complex64

    def __init__(
        self,
        *,
        slices: range | None = None,
        nonfinite: Literal["error", "zero"] = "error",
        key: str | None = None,
        axes: str | None = None,
        mask: Path | str | None = None,
        maps: Path | str | None = None,
        calibration: Path | str | None = None,
        repetitions: Literal["average", "first"] = "average",
        half_fov_shift: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        options = ReadOptions(
            key=key,
            axes=axes,
            mask=_path(mask),
            maps=_path(maps),
            calibration=_path(calibration),
            repetitions=repetitions,
            nonfinite=nonfinite,
            half_fov_shift=half_fov_shift,
            max_bytes=max_bytes,
        )
        super().__init__(options, slices)


class SinogramReader(_ScanReader):
    """Sinograms of any CT format medrecon reads as line integrals, float32 (channels, slices, views, bins).

    Use it with ``LoadImaged(keys, reader="SinogramReader", ensure_channel_first=True)`` after
    :func:`medrecon.pipelines.register`. The X-ray transform travels in the metadata.

    Parameters
    ----------
    slices
        Which slices to read, e.g. ``range(10, 20)``; the others stay on disk. None for all.
    nonfinite, key, axes, center, suppress_rings, pixel_size, image_size, mu_water, max_bytes
        As in :class:`medrecon.io.ReadOptions`. With ``mu_water`` images will be in Hounsfield units, which DICOM
        needs, otherwise in 1/mm.
    """

    kind: Kind = "sinograms"
    dtype = torch.float32

    def __init__(
        self,
        *,
        slices: range | None = None,
        nonfinite: Literal["error", "zero"] = "error",
        key: str | None = None,
        axes: str | None = None,
        center: float | Literal["auto"] | None = None,
        suppress_rings: bool = False,
        pixel_size: float | None = None,
        image_size: int | None = None,
        mu_water: float | None = None,
        max_bytes: int | None = None,
    ) -> None:
        options = ReadOptions(
            key=key,
            axes=axes,
            nonfinite=nonfinite,
            center=center,
            suppress_rings=suppress_rings,
            pixel_size=pixel_size,
            image_size=image_size,
            mu_water=mu_water,
            max_bytes=max_bytes,
        )
        super().__init__(options, slices)


def _read_slices(stack: SliceStack, slices: range, dtype: torch.dtype) -> tuple[Tensor, list[int]]:
    """Read slices (C, …) into one array (C, slices, …); slices without any data stay zero and are listed.

    Raises
    ------
    EmptyDataError
        Where no slice holds data.
    """
    array = torch.zeros((stack.shape[0], len(slices), *stack.shape[1:]), dtype=dtype)
    empty: list[int] = []
    for place, index in enumerate(slices):
        try:
            array[:, place] = stack[index]
        except EmptyDataError:
            empty.append(index)
            if len(empty) == len(slices):
                raise
    return array, empty


def _names(data: FileNames) -> list[str]:
    several = [data] if isinstance(data, str | os.PathLike) else list(data)
    return [os.fspath(name) for name in several if isinstance(name, str | os.PathLike)]


def _path(name: Path | str | None) -> Path | None:
    return None if name is None else Path(name)


def _kind(scan: Scan) -> Kind | None:
    if isinstance(scan.acquisition, CartesianAcquisition):
        return "k-space"
    return "sinograms" if isinstance(scan.acquisition, XRayTransform) else None


def _kind_of(name: str, options: ReadOptions) -> Kind | None:
    """Return what a file holds, None where it is none of medrecon's."""
    try:
        status = Path(name).stat()
    except (OSError, ValueError):
        return None
    return None if Path(name).is_dir() else _looked_up(name, status.st_mtime_ns, status.st_size, options)


@lru_cache(maxsize=256)
def _looked_up(name: str, _changed: int, _size: int, options: ReadOptions) -> Kind | None:
    try:
        scan = read_scan(name, options)
    except MedreconError:
        return None
    return None if scan.format == _GENERAL and options.axes is None else _kind(scan)
