"""Images to train on: any files that hold some, as single slices."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medrecon.datasets.batch import UNKNOWN
from medrecon.datasets.damage import OnDamage
from medrecon.datasets.source import Source
from medrecon.errors import InputError, NumericalError
from medrecon.io.dicom_series import find_series
from medrecon.io.images import load_image
from medrecon.operators.ct.hounsfield import MU_WATER, from_hounsfield

_log = logging.getLogger(__name__)
_IMAGES = (
    ".nii", ".nii.gz", ".nrrd", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy", ".npz", ".mat", ".h5"
)  # fmt: skip


class GroundTruth(NamedTuple):
    """A slice.

    Attributes
    ----------
    image
        (H, W), float32 or complex64; CT in 1/mm.
    source
        File and slice.
    pixel_size
        In mm, 1 where the file does not say.
    subject
        Who is shown, so that nobody is both trained and validated on; empty where only the volume is known.
    """

    image: Tensor
    source: Source = UNKNOWN
    pixel_size: float = 1.0
    subject: str = ""


def load_ground_truth(
    paths: Iterable[Path | str],
    *,
    key: str | None = None,
    modality: Literal["MR", "CT", "OT"] | None = None,
    mu_water: float = MU_WATER,
    on_damage: OnDamage = "stop",
    subjects: str | None = None,
) -> list[GroundTruth]:
    """Read all slices of files and folders into memory, those without any signal and masks left out.

    Parameters
    ----------
    paths
        NIfTI, NRRD, DICOM (each series of a folder is a volume, each patient a subject), PNG, JPEG, TIFF, NPY, NPZ,
        MAT, HDF5 with a reconstruction; other folders are searched, in the order of names.
    key
        Variable in array files.
    modality
        Of files that do not say.
    mu_water
        Attenuation of water in 1/mm: CT numbers become attenuation.
    subjects
        Variable in array files that says for each slice who is shown, (slices,) or, in its first column,
        (slices, n). Slices of a subject are a volume; files of one folder share their subjects.
    on_damage
        "skip" leaves out files that cannot be read, with a warning for each.

    Raises
    ------
    InputError
        For a file that cannot be read (unless such are left out), and where there is not a single slice.
    """
    found = []
    searched = [Path(path) for path in paths]
    assumed: Counter[str] = Counter()
    masks: list[str] = []
    for file, stack, patient in _volumes(searched):
        try:
            volume = load_image(file, key=stack or key, modality=modality, warn=False)
        except (InputError, NumericalError) as error:
            if on_damage == "stop":
                raise
            _log.warning("left out: %s", error)
            continue
        assumed.update(volume.provenance.get("notes", ()))
        slices = torch.from_numpy(volume.array)
        if volume.modality == "CT":
            slices = from_hounsfield(slices.float(), mu_water=mu_water)
        if _is_mask(slices):
            masks.append(_shown(file, searched))
            continue
        size = float(volume.geometry.spacing[0])
        name = _shown(file, searched) + (f", stack {stack}" if stack else "")
        shown = _subjects(file, subjects, len(slices))
        for index, image in enumerate(slices):
            if bool(image.abs().amax() > 0):
                volume_name = name if shown is None else f"{name}, subject {shown[index]}"
                subject = patient if shown is None else f"{file.parent}: {shown[index]}"
                found.append(GroundTruth(image, Source(volume_name, index), size, subject))
    for note, count in assumed.items():
        _log.warning("%s: %s", "one file" if count == 1 else f"{count} files", note)
    if masks:
        _log.warning("%d files hold two values only, so they are masks and left out: %s, ...", len(masks), masks[0])
    if not found:
        names = ", ".join(map(str, searched)) or "an empty list"
        raise InputError(f"{names}: no image with any signal; expected files or folders of images")
    return found


def _subjects(file: Path, key: str | None, slices: int) -> list[str] | None:
    """Return who is shown on each slice, where the file has such a variable."""
    if key is None or not file.name.lower().endswith((".npz", ".mat", ".h5")):
        return None
    from medrecon.io.readers.containers import load_array, open_arrays

    with open_arrays(file) as arrays:
        if key not in arrays.entries:
            return None
    numbers = load_array(file, key)
    column = numbers.reshape(len(numbers), -1)[:, 0] if numbers.ndim else numbers.reshape(-1)
    if len(column) != slices:
        raise InputError(f"{file}: '{key}' names {len(column)} subjects, the file has {slices} slices")
    return [str(number.item()) for number in column]


def _is_mask(slices: Tensor) -> bool:
    """Whether a volume has no grey values at all, as the masks that lie beside many data sets."""
    if slices.is_complex():
        return False
    low, high = slices.amin(), slices.amax()
    return bool(high > low) and bool(((slices == low) | (slices == high)).all())


def _shown(file: Path, searched: list[Path]) -> str:
    """Return the file by its place in the folder that was searched: names repeat in the folders of subjects."""
    for folder in searched:
        if file.is_relative_to(folder) and file != folder:
            return file.relative_to(folder).as_posix()
    return file.name


def _volumes(paths: Iterable[Path]) -> Iterator[tuple[Path, str | None, str]]:
    """Yield files and folders with, where a folder holds several DICOM stacks, the number of each and its patient."""
    for file in _files(paths):
        try:
            stacks = find_series(file) if file.is_dir() else []
        except InputError:
            stacks = []  # load_image says what is wrong
        if len(stacks) < 2:
            yield file, None, ""
            continue
        for number, stack in enumerate(stacks, start=1):
            patient = str(stack.slices[0].header.get("PatientID") or "")
            digest = hashlib.sha256(patient.encode()).hexdigest()[:12]
            yield file, str(number), f"{file}: patient {digest}" if patient else ""


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path  # a missing one is load_image's to name
            continue
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        if any(entry.suffix.lower() == ".dcm" for entry in entries):
            yield path
        else:
            yield from _files(entry for entry in entries if entry.is_dir() or _is_image(entry))


def _is_image(path: Path) -> bool:
    """Whether a file of a folder that is searched may hold images: notes and licences lie there as well."""
    return path.name.lower().endswith(_IMAGES)
