"""One door for images out: the format follows from the name of the output."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from medrecon.errors import MedreconError, NumericalError, UsageError
from medrecon.io.image import Image
from medrecon.io.writers.atomic import atomic_folder, atomic_path, check_folder, check_writable
from medrecon.io.writers.dicom import check_dicom, write_dicom
from medrecon.io.writers.dicom_template import Template, fitting_geometry, read_template, with_template_geometry
from medrecon.io.writers.hdf5 import write_hdf5
from medrecon.io.writers.nifti import write_nifti
from medrecon.io.writers.npz import write_npz
from medrecon.io.writers.png import write_png
from medrecon.io.writers.sidecar import write_sidecar

Format = Literal["nifti", "dicom", "hdf5", "npz", "png"]

_SUFFIXES: dict[str, Format] = {
    ".nii.gz": "nifti", ".nii": "nifti", ".dcm": "dicom", ".h5": "hdf5", ".hdf5": "hdf5", ".npz": "npz", ".png": "png"
}  # fmt: skip
_DEFAULT: dict[Format, str] = {"nifti": ".nii.gz", "dicom": ".dcm", "hdf5": ".h5", "npz": ".npz", "png": ".png"}
_COMPLEX = frozenset({"nifti", "npz"})
_INPUT_SUFFIXES = (".nii.gz", ".nii", ".dcm", ".h5", ".hdf5", ".npz", ".npy", ".png", ".mat", ".cfl", ".hdr", ".mrd")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputPlan:
    """Where one image will be written and how; made and checked before the work starts.

    Parameters
    ----------
    format
        Name of the format.
    path
        The file; a DICOM series of several slices becomes :attr:`folder` instead.
    """

    format: Format
    path: Path

    @property
    def stem(self) -> str:
        """Name of the file without its suffix."""
        return source_stem(self.path)

    @property
    def sidecar(self) -> Path:
        """The JSON file beside it."""
        return self.path.with_name(f"{self.stem}.json")

    @property
    def folder(self) -> Path:
        """Folder of a DICOM series: the path without ``.dcm``; its files are ``stem_0001.dcm`` and so on."""
        return self.path.with_name(self.stem)

    def beside(self, word: str) -> "OutputPlan":
        """Return the plan of a second image that belongs to this one: ``stem_word`` in the same format."""
        suffix = self.path.name[len(self.stem) :]
        return replace(self, path=self.path.with_name(f"{self.stem}_{word}{suffix}"))

    def series(self, slices: int) -> list[str]:
        """Names of the files in :attr:`folder`."""
        return [f"{self.stem}_{index:04d}.dcm" for index in range(1, slices + 1)]

    @property
    def owned(self) -> str:
        """Regular expression of the names in :attr:`folder`."""
        return rf"{re.escape(self.stem)}_\d{{4,}}\.dcm"

    def check(self, *, overwrite: bool = False, slices: int | None = None, sidecar: bool = True) -> None:
        """Raise UsageError if the output could not be written; ``slices`` tells file from folder for DICOM."""
        if self.format == "dicom" and slices != 1:
            check_folder(self.folder, self.owned, overwrite=overwrite)
        if self.format != "dicom" or slices is None or slices == 1:
            check_writable(self.path, overwrite=overwrite)
        if sidecar:
            check_writable(self.sidecar, overwrite=overwrite)


def source_stem(path: Path) -> str:
    """Name for outputs made from ``path``: its stem, with nothing in it that could lead elsewhere."""
    name = path.name
    suffix = next((known for known in _INPUT_SUFFIXES if name.lower().endswith(known)), path.suffix)
    stem = name[: len(name) - len(suffix)] if suffix else name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip(".") or "image"


def plan_output(target: Path | str, stem: str, *, format: Format | None = None) -> OutputPlan:  # noqa: A002
    """Decide file and format of an output.

    Parameters
    ----------
    target
        A file whose suffix names the format (.nii, .nii.gz, .dcm, .h5, .npz, .png), or a folder: an
        existing one, a name that ends with a slash, or one without suffix.
    stem
        Name of the file within a folder, usually :func:`source_stem` of the input.
    format
        Format within a folder; None is NIfTI (``.nii.gz``).
    """
    path = Path(target)
    named = next((known for suffix, known in _SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    slash = isinstance(target, str) and target.endswith(("/", os.sep))
    if slash or path.is_dir() or not path.suffix:
        return OutputPlan(format or "nifti", path / f"{source_stem(Path(stem))}{_DEFAULT[format or 'nifti']}")
    if named is None:
        raise UsageError(
            f"{path}: no format is known for the suffix {path.suffix!r}; expected {', '.join(_SUFFIXES)} or a folder"
        )
    if format is not None and format != named:
        raise UsageError(f"{path}: the suffix says {named}, but {format} is asked for; change one of them")
    return OutputPlan(named, path)


def write_image(
    image: Image,
    target: Path | str | OutputPlan,
    *,
    overwrite: bool = False,
    template: Path | None = None,
    template_geometry: bool = False,
    dtype: Literal["float32", "complex64"] | None = None,
    sidecar: bool = True,
) -> list[Path]:
    """Write an image and its JSON sidecar; return the paths of both, the image (or its folder) first.

    Either both are complete at the end or neither is there.

    Parameters
    ----------
    image
        What to write. Values that are not finite are a NumericalError.
    target
        See :func:`plan_output`; without a plan, a file in a folder is called ``image``. A DICOM target
        ``name.dcm`` is one file for a single slice, else the folder ``name`` with ``name_0001.dcm``, ….
    overwrite
        Replace an earlier result (``--overwrite``).
    template
        DICOM file or series whose patient and study the written series joins (``--template``).
    template_geometry
        Take over position and orientation of the template as well (``--template-geometry``), for an
        image that has none and a template with the same grid. Only the user can know that both are
        mirrored alike.
    dtype
        ``float32`` writes the magnitude of a complex image, ``complex64`` insists on complex values;
        None keeps complex values where the format holds them (NIfTI, npz) and takes the magnitude elsewhere.
    sidecar
        Leave the JSON out with False, e.g. for a preview beside another output.
    """
    plan = target if isinstance(target, OutputPlan) else plan_output(target, "image")
    slices = image.array.shape[0]
    plan.check(overwrite=overwrite, slices=slices, sidecar=sidecar)
    image = _as_dtype(image, plan, dtype)
    _require_finite(image)
    known = template_for(plan, template, template_geometry=template_geometry)
    if known is not None:
        image = _place(image, known, template_geometry)
    if plan.format == "dicom":
        check_dicom(image)
    names = plan.series(slices) if plan.format == "dicom" and slices > 1 else []
    with _naming_disk_errors(plan.path), ExitStack() as stack:
        # Left in reverse order: the image takes its place first, then its sidecar; if anything before
        # fails, neither does.
        record = stack.enter_context(atomic_path(plan.sidecar, overwrite=overwrite)) if sidecar else None
        if names:
            place = stack.enter_context(atomic_folder(plan.folder, plan.owned, overwrite=overwrite))
            write_dicom(image, [place / name for name in names], known)
        else:
            place = stack.enter_context(atomic_path(plan.path, overwrite=overwrite))
            _write_file(image, place, plan.format, known)
        if record is not None:
            write_sidecar(image, record, names or [plan.path.name])
    result = plan.folder if names else plan.path
    return [result, plan.sidecar] if sidecar else [result]


def _write_file(image: Image, path: Path, kind: Format, template: Template | None) -> None:
    match kind:
        case "nifti":
            write_nifti(image, path)
        case "dicom":
            write_dicom(image, [path], template)
        case "hdf5":
            write_hdf5(image, path)
        case "npz":
            write_npz(image, path)
        case "png":
            write_png(image, path)


def _as_dtype(image: Image, plan: OutputPlan, dtype: str | None) -> Image:
    if dtype == "complex64":
        if plan.format not in _COMPLEX or not np.iscomplexobj(image.array):
            reason = "this image is real" if plan.format in _COMPLEX else f"{plan.format} files hold real values"
            raise UsageError(f"--dtype complex64: {reason}; use float32, or a complex image and .nii.gz or .npz")
        return image
    if dtype not in (None, "float32"):
        raise UsageError(f"--dtype {dtype}: expected float32 or complex64")
    return replace(image, array=image.magnitude) if dtype == "float32" or plan.format not in _COMPLEX else image


def _require_finite(image: Image) -> None:
    if image.array.size == 0:
        raise UsageError(f"an image of shape {image.array.shape} has no values to write")
    for index, plane in enumerate(image.array):
        bad = plane.size - int(np.isfinite(plane).sum())
        if bad:
            raise NumericalError(
                f"slice {index + 1} of {len(image.array)} has {bad} values that are NaN or infinite; nothing is "
                "written. Check the input (--nonfinite zero repairs single samples) or leave the slice out"
            )


def template_for(plan: OutputPlan, path: Path | None, *, template_geometry: bool = False) -> Template | None:
    """Read the template of an output, None without one; UsageError where the options do not go together."""
    geometry = template_geometry
    if path is None:
        if geometry:
            raise UsageError("--template-geometry takes over the position of a template: name it with --template")
        return None
    if plan.format != "dicom" and not geometry:
        raise UsageError(
            f"--template is for DICOM output, but {plan.path.name} is {plan.format}; write to a .dcm, "
            "or add --template-geometry to take over nothing but the position"
        )
    return read_template(path)


def _place(image: Image, template: Template, geometry: bool) -> Image:
    if geometry:
        return with_template_geometry(image, template)
    if not image.geometry.oriented and fitting_geometry(image, template) is not None:
        _log.warning(
            "the raw file states no position, and the template has the same grid: --template-geometry takes over its "
            "position and orientation. Check first that left and right agree in both"
        )
    return image


@contextmanager
def _naming_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MedreconError(
            f"{path}: writing failed ({reason}); nothing was left behind. Free some space or choose another output"
        ) from error
