"""What the fastMRI volumes of a folder hold, read once and remembered."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medrecon.errors import InputError, MedreconError
from medrecon.io.scan import CartesianAcquisition, Scan

CACHE = "MEDRECON_CACHE"
_FORMAT = 2
_READERS = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Volume:
    """A fastMRI volume, as its header describes it.

    Parameters
    ----------
    path
        The file.
    slices, coils, rows, columns
        Of its k-space; rows are the (oversampled) read-out.
    matrix
        (height, width) of the reconstruction.
    acquired
        First and one past the last column that was acquired: what lies outside is padding.
    acquisition
        Type of scan, for example AXT2.
    undersampled
        Whether the file is of a test set, and cannot be trained on.
    size, modified
        Bytes and time of the file: what is known of it holds as long as these do.
    """

    path: Path
    slices: int
    coils: int
    rows: int
    columns: int
    matrix: tuple[int, int]
    acquired: tuple[int, int]
    acquisition: str
    undersampled: bool
    size: int
    modified: int


@dataclass(frozen=True)
class VolumeIndex:
    """The volumes of a folder, by name, and why other HDF5 files are none."""

    volumes: tuple[Volume, ...]
    unusable: dict[str, str]

    def fingerprint(self) -> str:
        """Return the SHA-256 of names and sizes: which data a model has seen."""
        listed = sorted(f"{volume.path.name}:{volume.size}" for volume in self.volumes)
        return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def index_folder(
    folder: Path, *, cache: Path | None = None, progress: Callable[[float], None] | None = None
) -> VolumeIndex:
    """Describe all fastMRI volumes directly inside a folder.

    The description is kept as JSON outside the folder, under ``MEDRECON_CACHE`` or ``~/.cache/medrecon``. Only files
    that are new, or whose size or time has changed, are opened again, each in a limited child process.

    Parameters
    ----------
    folder
        With ``*.h5`` files, or one such file.
    cache
        Folder for the description instead of the default.
    progress
        Called with the share of the files that are done.

    Raises
    ------
    InputError
        Where there is no folder, or no HDF5 file in it.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("*.h5")) if folder.is_dir() else []
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        what = "no *.h5 files in this folder" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}; expected a folder of fastMRI volumes such as multicoil_train")
    store = (cache or cache_folder()) / f"index-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]}.json"
    known = _load(store)
    stale = [file for file in files if not _fresh(known.get(file.name), file)]
    with ThreadPoolExecutor(_READERS) as pool:
        for done, (name, entry) in enumerate(pool.map(_describe, stale), start=1):
            known[name] = entry
            if progress is not None:
                progress(done / len(stale))
    if stale:
        _save(store, known)
    entries = {file: known[file.name] for file in files}
    volumes = tuple(_volume(file, entry) for file, entry in entries.items() if "unusable" not in entry)
    unusable = {file.name: str(entry["unusable"]) for file, entry in entries.items() if "unusable" in entry}
    return VolumeIndex(volumes, unusable)


def cache_folder() -> Path:
    """Return where medrecon keeps what it can compute again."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medrecon"


def _describe(file: Path) -> tuple[str, dict[str, Any]]:
    from medrecon.io.registry import read_scan

    stamp = _stamp(file)
    try:
        scan = read_scan(file)
        entry = _entry(scan)
    except (MedreconError, OSError) as error:
        return file.name, {"unusable": str(error), **stamp}
    return file.name, {**entry, **stamp}


def _entry(scan: Scan) -> dict[str, Any]:
    if scan.format != "fastmri" or not isinstance(scan.acquisition, CartesianAcquisition):
        raise InputError(f"{scan.source}: is a file of format {scan.format}, not of fastMRI's")
    coils, rows, columns = scan.measurements.shape
    acquisition = scan.header.get("acquisition", "")
    mask = scan.acquisition.mask
    first, stop = 0, columns
    undersampled = False
    if mask is not None:
        inside = mask.reshape(-1).nonzero().flatten().tolist()
        first, stop = inside[0], inside[-1] + 1
        undersampled = len(inside) < stop - first
    return {
        "slices": len(scan.measurements),
        "coils": coils,
        "rows": rows,
        "columns": columns,
        "matrix": list(scan.acquisition.matrix or (rows, columns)),
        "acquired": [first, stop],
        "acquisition": str(acquisition),
        "undersampled": undersampled,
    }


def _stamp(file: Path) -> dict[str, int]:
    status = file.stat()
    return {"size": status.st_size, "modified": status.st_mtime_ns}


def _fresh(entry: dict[str, Any] | None, file: Path) -> bool:
    return entry is not None and {key: entry.get(key) for key in ("size", "modified")} == _stamp(file)


def _volume(file: Path, entry: dict[str, Any]) -> Volume:
    height, width = entry["matrix"]
    first, stop = entry["acquired"]
    return Volume(**{**entry, "path": file, "matrix": (height, width), "acquired": (first, stop)})


def _load(store: Path) -> dict[str, dict[str, Any]]:
    """Return what is remembered; nothing, where that was written by another version or is damaged."""
    try:
        content = json.loads(store.read_text(encoding="utf-8"))
        entries = content["files"] if content["format"] == _FORMAT else {}
        return {name: entry for name, entry in entries.items() if _complete(entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _complete(entry: Any) -> bool:  # noqa: ANN401 -- parsed JSON, checked here
    wanted = {field.name for field in fields(Volume)} - {"path"}
    return isinstance(entry, dict) and ("unusable" in entry or wanted == entry.keys())


def _save(store: Path, entries: dict[str, dict[str, Any]]) -> None:
    from medrecon.io.writers.atomic import atomic_path

    try:
        with atomic_path(store, overwrite=True) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, "files": entries}), encoding="utf-8")
    except (OSError, MedreconError) as error:
        _log.warning("the index of volumes could not be kept (%s): it will be made again next time", error)


def describe_volumes(volumes: Sequence[Volume]) -> str:
    """Return a line for people: volumes, slices, types of scan.

    >>> describe_volumes([])
    '0 volumes'
    """
    kinds = sorted({volume.acquisition for volume in volumes if volume.acquisition})
    text = f"{len(volumes)} volumes"
    if volumes:
        text += f", {sum(volume.slices for volume in volumes)} slices"
    return text + (f" ({', '.join(kinds)})" if kinds else "")
