"""Which reader a file needs: decided by its content."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from medrecon.errors import InputError
from medrecon.io.checks import with_checks
from medrecon.io.fov import with_half_fov_shift, with_shift_hint
from medrecon.io.hdf5 import Hdf5File, shown
from medrecon.io.options import ReadOptions
from medrecon.io.overrides import refuse_overrides, with_overrides
from medrecon.io.scan import Scan
from medrecon.io.source import Source


class Reader(Protocol):
    """One input format."""

    name: str

    def recognises(self, source: Source) -> bool:
        """Whether the content is of this format; cheap, and never raises on foreign files."""
        ...

    def read(self, source: Source, options: ReadOptions) -> Scan:
        """Describe the scan; the samples are read when they are asked for."""
        ...


@dataclass(frozen=True)
class _Entry:
    """A reader by dotted name, imported when needed.

    ``keys`` are the datasets in which the format itself keeps the measurements. A general reader
    takes any array and therefore only what no other reader claims, or what ``--key`` names. A reader
    that ``places`` side files (mask, maps, calibration) itself leaves nothing to override.
    """

    module: str
    name: str
    keys: tuple[str, ...] = ()
    general: bool = False
    places: bool = False

    def load(self) -> Reader:
        reader: Reader = getattr(import_module(self.module), self.name)()
        return reader


_PACKAGE = "medrecon.io.readers"
_READERS = (
    _Entry(f"{_PACKAGE}.native", "NativeReader", ("measurements",)),
    _Entry(f"{_PACKAGE}.fastmri", "FastMRIReader", ("kspace",)),
    _Entry(f"{_PACKAGE}.ismrmrd", "IsmrmrdReader", ("dataset", "dataset/data", "data")),
    _Entry(f"{_PACKAGE}.sinogram", "SinogramReader", ("sinogram",), places=True),
    _Entry(f"{_PACKAGE}.data_exchange", "DataExchangeReader", ("exchange/data",), places=True),
    _Entry(f"{_PACKAGE}.lodopab", "LoDoPaBReader", ("data",), places=True),
    _Entry(f"{_PACKAGE}.htc2022", "Htc2022Reader", places=True),
    _Entry(f"{_PACKAGE}.ct_pd", "CtPdReader", places=True),
    _Entry(f"{_PACKAGE}.cfl", "CflReader", places=True),
    _Entry(f"{_PACKAGE}.arrays", "ArrayReader", general=True, places=True),
)
_DEFAULTS = ReadOptions()
_CONTENTS = (
    (128, b"DICM", "a DICOM file: an image, not raw data ('medrecon simulate' makes measurements of images)"),
    (344, b"n+1\0", "a NIfTI file: an image, not raw data ('medrecon simulate' makes measurements of images)"),
    (0, b"\x1f\x8b", "a gzip file: unpack it first"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (0, b"\x89HDF", "a damaged HDF5 file"),
)


def read_scan(path: Path | str, options: ReadOptions = _DEFAULTS) -> Scan:
    """Read a raw file, whatever its format.

    Parameters
    ----------
    path
        The file; for BART the .cfl, the .hdr or their common stem; for DICOM-CT-PD a file or the folder.
    options
        What the file does not say.

    Raises
    ------
    InputError
        The file cannot be read, is of no known format, or several formats claim it.
    NumericalError
        Not here but when a slice is read that holds NaN, Inf or nothing at all (see ``options.nonfinite``).
    """
    path = Path(path)
    if path.is_dir():
        from medrecon.io.readers.ct_pd import first_projection

        path = first_projection(path)
    header = path.with_name(path.name + ".hdr")
    source = Source(header if not path.exists() and header.is_file() else path, max_bytes=options.max_bytes)
    try:
        entry, reader = _choose(source, options)
        scan = reader.read(source, options)
        refuse_overrides(scan, options)
        scan = scan if entry.places else with_overrides(scan, options)
        if options.half_fov_shift:
            scan = with_half_fov_shift(scan)
        elif entry.places:
            scan = with_shift_hint(scan, options.nonfinite)
        return with_checks(scan, options.nonfinite)
    except BaseException:
        source.close()
        raise


def _choose(source: Source, options: ReadOptions) -> tuple[_Entry, Reader]:
    if source.hdf5 is not None and not source.hdf5.datasets and not source.hdf5.refused:
        raise InputError(f"{source.path} is an HDF5 file without any dataset; expected measurements in it")
    loaded = [(entry, entry.load()) for entry in _READERS]
    matching = [(entry, reader) for entry, reader in loaded if reader.recognises(source)]
    special = [(entry, reader) for entry, reader in matching if not entry.general]
    if options.key is not None:
        key = options.key.strip("/")
        # A key that names an array unknown to the format picks that array out of the file.
        info = None if source.hdf5 is None else source.hdf5.datasets.get(key)
        picked = info is not None and info.dtype is not None
        special = [(entry, reader) for entry, reader in special if not (picked and entry.keys) or key in entry.keys]
    if len(special) > 1:
        claims = ", ".join(f"{reader.name} (--key {' or '.join(entry.keys)})" for entry, reader in special)
        raise InputError(f"{source.path} could be several formats: {claims}; choose one with --key")
    general = [(entry, reader) for entry, reader in matching if entry.general and _has_arrays(source)]
    for choice in special or general:
        return choice
    known = ", ".join(reader.name for _, reader in loaded)
    raise InputError(f"{source.path} is of no known format: it looks like {_contents(source)}; known formats: {known}")


def _has_arrays(source: Source) -> bool:
    """Whether there is anything to choose from; always so but in HDF5 files that keep nothing themselves."""
    return source.hdf5 is None or any(
        info.dtype is not None and info.refused is None for info in source.hdf5.datasets.values()
    )


def _contents(source: Source) -> str:
    if source.hdf5 is not None:
        return _datasets(source.hdf5)
    for start, signature, description in _CONTENTS:
        if source.head[start : start + len(signature)] == signature:
            return description
    return f"unknown binary data or text, beginning with the bytes {source.head[:4].hex(' ')}"


def _datasets(file: Hdf5File) -> str:
    found = [
        f"{shown(name)} {info.shape}" + (f" (which {info.refused})" if info.refused else "")
        for name, info in file.datasets.items()
    ]
    found += [f"{shown(name)} (which {reason})" for name, reason in file.refused.items()]
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return f"an HDF5 file with {', '.join(found[:12])}{more}"
