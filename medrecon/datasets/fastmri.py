"""fastMRI volumes: measured k-space, undersampled anew for every epoch."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medrecon.datasets.batch import TrainingSample, centre_magnitude
from medrecon.datasets.damage import Damage, OnDamage
from medrecon.datasets.draws import Draws
from medrecon.datasets.maps_cache import MapsCache
from medrecon.datasets.source import Source, distinct_names
from medrecon.datasets.volume_index import Volume
from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.io.oversampling import central_rows
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.coils import CalibrationRegion, MapMethod, find_calibration_region
from medrecon.operators.fourier import centred_fft, centred_ifft
from medrecon.operators.samplers.base import MaskSampler, centre, derived_seed
from medrecon.operators.samplers.fastmri import FastMRILines

_LEAST_CALIBRATION = 4
_MOST_CALIBRATION = 24


class _Lines(NamedTuple):
    """A drawn mask (1, W), its nominal acceleration, and how many central lines it is known to have."""

    mask: Tensor
    acceleration: float | None
    low: int | None


class FastMRIDataset(Dataset[TrainingSample | None]):
    r"""Slices of fastMRI volumes, one file opened for each.

    Read-out oversampling is removed first: the read-out is fully sampled, so its Fourier transform can be undone
    exactly, cropped to the field of view and done again; network and operator then work on half the samples. From the
    coil images :math:`x_c` of the full k-space, the maps :math:`s_c` and the mask M,

    .. math:: y_c = M F x_c, \qquad x = \frac{\sum_c \bar s_c x_c}{\sum_c |s_c|^2},

    are measurements and target. Maps are estimated from the calibration lines that the mask leaves.

    In training, masks, turns of the phase and mirrorings depend on seed, epoch and index only. In validation every
    slice of a file has the same mask, seeded by the name of the file as fastMRI does it.

    Parameters
    ----------
    volumes
        Of :func:`~medrecon.datasets.volume_index.index_folder`.
    mask
        Sampler of the lines; those outside the acquired columns of a file are left out afterwards.
    training
        Whether to draw anew every epoch and to replace what cannot be read.
    maps
        How coil sensitivities are estimated. "low-resolution" takes milliseconds, "espirit" seconds.
    maps_cache
        Folder in which maps are kept: for slow estimates, at 8 bytes a pixel and coil.
    remove_oversampling
        Whether to crop the read-out to the field of view.
    readout_patch
        Rows of a random window of the read-out to train on, which is exact for the same reason.
    augment
        Whether to mirror images and to turn their phase.
    slices
        Of each volume, as a range of fractions (0, 1): (0.2, 0.8) leaves out what lies outside the object.
    on_damage
        "stop" or "skip", see :class:`~medrecon.datasets.damage.Damage`.
    seed
        Of all that is drawn.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        mask: MaskSampler,
        *,
        training: bool,
        maps: MapMethod = "low-resolution",
        maps_cache: Path | None = None,
        remove_oversampling: bool = True,
        readout_patch: int | None = None,
        augment: bool = False,
        slices: tuple[float, float] = (0.0, 1.0),
        on_damage: OnDamage = "stop",
        seed: int = 0,
    ) -> None:
        if not 0 <= slices[0] < slices[1] <= 1:
            raise UsageError(f"FastMRIDataset: slices is a range of fractions 0 <= low < high <= 1, got {slices}")
        self.volumes = tuple(volume for volume in volumes if not volume.undersampled)
        if not self.volumes:
            raise InputError(
                f"none of {len(volumes)} volumes can be trained on: they are undersampled, as test sets are; expected "
                "fully sampled k-space such as that of multicoil_train"
            )
        self.mask = mask
        self.training = training
        self.remove_oversampling = remove_oversampling
        self.readout_patch = readout_patch
        self.augment = augment
        self.seed = seed
        self.damage = Damage(on_damage, replace=training)
        self._maps = MapsCache(maps, maps_cache)
        self._names = distinct_names(volume.path for volume in self.volumes)
        self._items = [(volume, number) for volume in self.volumes for number in _share(volume.slices, *slices)]
        for volume in self.volumes:
            rows = self._rows(volume)
            if readout_patch is not None and not 0 < readout_patch <= rows:
                raise UsageError(
                    f"FastMRIDataset: readout_patch must lie between 1 and the rows of images, got {readout_patch}; "
                    f"{volume.path.name} has {rows}"
                )
        self._draws = Draws(seed)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._items)

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks from now on, in running workers as well."""
        self._draws.set_epoch(epoch)

    def volume_of(self, index: int) -> str:
        """Return which volume a sample belongs to."""
        return self._names[self._items[index][0].path]

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return what samples of a batch need to have in common: coils, rows, columns, size of the reference."""
        volume, _ = self._items[index]
        return volume.coils, self._rows(volume), volume.columns, *volume.matrix

    def __getitem__(self, index: int) -> TrainingSample | None:
        """Return a slice; see :class:`~medrecon.datasets.damage.Damage` for what happens to one that is damaged."""
        return self.damage.read(self._sample, index, len(self))

    def _sample(self, index: int) -> TrainingSample:
        volume, number = self._items[index]
        generator = self._draws.generator(index)
        kspace, reference = read_slice(volume, number)
        lines = self._lines(volume, generator)
        hybrid = central_rows(centred_ifft(kspace, (-2,)), self._rows(volume))
        maps = self._maps_of(hybrid, lines, volume, number)
        images, maps, changed = self._augmented(centred_ifft(hybrid, (-1,)), maps, generator)
        if changed or reference is None:
            shape = min(volume.matrix[0], images.shape[1]), volume.matrix[1]
            # vector_norm takes fifteen times as long over a leading axis of complex numbers
            magnitude = (images.conj() * images).sum(0).real.sqrt()
            reference = centre_magnitude(magnitude[None, None], shape)[0]
        single = volume.coils == 1
        operator = CartesianMRI(lines.mask, None if single else maps, image_shape=(images.shape[1], images.shape[2]))
        conjugate = maps.conj()
        energy = (conjugate * maps).sum(1).real
        target = (conjugate * images).sum(1) / torch.where(energy > 0, energy, 1)
        if self.augment or self.readout_patch is not None:
            hybrid = centred_fft(images, (-1,))
        measured = _measured(hybrid, lines.mask)[None]
        source = Source(self._names[volume.path], number, volume.acquisition, lines.acceleration)
        return TrainingSample(measured, operator, target[None], source, reference[None])

    def _rows(self, volume: Volume) -> int:
        return min(volume.matrix[0], volume.rows) if self.remove_oversampling else volume.rows

    def _lines(self, volume: Volume, generator: torch.Generator) -> _Lines:
        shape = (volume.rows, volume.columns)
        name = volume.path.name
        if isinstance(self.mask, FastMRILines):
            seed = derived_seed(generator) if self.training else tuple(map(ord, name))
            draw = self.mask.draw_details(shape, seed)
            mask, acceleration, low = draw.mask, draw.acceleration, draw.low_frequencies
        else:
            if not self.training:
                generator = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:15], 16))
            mask, acceleration, low = self.mask.draw(shape, generator), None, None
        if mask.shape[0] > 1:
            raise UsageError("FastMRIDataset: the mask must undersample the phase encoding only, as that of lines does")
        first, stop = volume.acquired
        mask = mask.clone()
        mask[:, :first] = False
        mask[:, stop:] = False
        return _Lines(mask, acceleration, low)

    def _maps_of(self, hybrid: Tensor, lines: _Lines, volume: Volume, number: int) -> Tensor:
        """Return maps (1, C, H, W) from the calibration lines; ``hybrid`` is transformed along the read-out only."""
        if volume.coils == 1:
            return torch.ones_like(hybrid)[None]
        height, width = hybrid.shape[1:]
        try:
            if lines.low is None or lines.low < _LEAST_CALIBRATION:
                masked = _measured(hybrid, lines.mask)
                region = find_calibration_region(masked, lines.mask, min_size=_LEAST_CALIBRATION)
            else:
                rows = centre(height, min(height, _MOST_CALIBRATION))
                columns = centre(width, min(lines.low, _MOST_CALIBRATION))
                region = CalibrationRegion((rows.start, columns.start), (rows.stop, columns.stop))
            rows, columns = region.slices
            calibration = centred_fft(hybrid[:, :, columns], (-2,))[:, rows]
            if not bool(torch.view_as_real(calibration).any()):  # of an empty slice: any maps will do
                return torch.full((1, volume.coils, height, width), volume.coils**-0.5, dtype=hybrid.dtype)
            return self._maps.get(calibration, (height, width), volume, number, region)
        except (InputError, NumericalError) as error:
            raise InputError(f"{volume.path.name}, slice {number}: {error}") from error

    def _augmented(self, images: Tensor, maps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, bool]:
        changed = False
        if self.augment:
            flips = [axis for axis in (-2, -1) if int(torch.randint(2, (1,), generator=generator))]
            turn = torch.rand((), generator=generator) * 2 * torch.pi
            images = images.flip(flips) * torch.polar(torch.ones(()), turn)
            maps = maps.flip(flips)
            changed = bool(flips)
        if self.readout_patch is not None:
            top = int(torch.randint(images.shape[1] - self.readout_patch + 1, (1,), generator=generator))
            images = images[:, top : top + self.readout_patch]
            maps = maps[:, :, top : top + self.readout_patch]
            changed = True
        return images, maps, changed


def read_slice(volume: Volume, number: int) -> tuple[Tensor, Tensor | None]:
    """Return k-space (C, H, W) complex64 and the reference image (h, w) of a slice, None where there is none.

    The file is opened here, by the process that wants the slice: the index has seen in a child process that
    its structure is sound. A file that has changed since is refused.

    Raises
    ------
    InputError
        Where the file cannot be read, has changed, holds NaN, or is undersampled after all.
    """
    import h5py

    where = f"{volume.path}, slice {number}"
    try:
        _require_unchanged(volume)
        with h5py.File(volume.path, "r") as file:
            kspace = torch.from_numpy(file["kspace"][number]).to(torch.complex64)
            names = ("reconstruction_esc", "reconstruction_rss") if kspace.ndim == 2 else ("reconstruction_rss",)
            found = next((name for name in names if name in file), None)
            reference = None if found is None else torch.from_numpy(file[found][number]).to(torch.float32)
            kspace = kspace.reshape(-1, volume.rows, volume.columns)
    except InputError:
        raise
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{where}: cannot be read ({error}); is the file complete?") from error
    first, stop = volume.acquired
    acquired = kspace[:, :, first:stop]
    # one sample shows that a column is not empty; only where it is zero the others have to be looked at
    if bool((acquired[0, volume.rows // 2] == 0).any()):
        empty = (acquired == 0).all(1).all(0)
        if bool(empty.any()) and not bool(empty.all()):  # a slice without any signal is one all the same
            raise InputError(f"{where}: some columns of the k-space are empty; expected fully sampled data")
    # a finite sum is quick to find and has finite terms only; the converse fails where it overflows
    values = torch.view_as_real(kspace)
    if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
        raise InputError(f"{where}: the k-space holds NaN or Inf")
    return kspace, reference


def _require_unchanged(volume: Volume) -> None:
    status = volume.path.stat()
    if (status.st_size, status.st_mtime_ns) != (volume.size, volume.modified):
        raise InputError(f"{volume.path}: has changed since training began; start again, or resume, to read it anew")


def _share(count: int, low: float, high: float) -> range:
    """Return the slices from one fraction of a volume to another: at least one."""
    first = min(math.ceil(low * count), count - 1)
    return range(first, max(math.ceil(high * count), first + 1))


def _measured(hybrid: Tensor, mask: Tensor) -> Tensor:
    """Return the masked k-space (C, H, W) of what has been transformed along the columns: sampled ones only."""
    lines = mask[0].nonzero().flatten()
    kspace = torch.zeros_like(hybrid)
    kspace[..., lines] = centred_fft(hybrid[..., lines], (-2,))
    return kspace
