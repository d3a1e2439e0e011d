"""BART's .cfl/.hdr pair: the sizes as text, the samples as column-major complex64."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.options import ReadOptions
from medrecon.io.readers.axes import parse_axes
from medrecon.io.scan import Scan
from medrecon.io.writers.atomic import atomic_path

if TYPE_CHECKING:
    from medrecon.io.source import Source

MAX_DIMS = 16
_BART = (
    "y", "x", "z", "coil", "_", "set", "_", "_", "_", "_", "repetition", "_", "_", "slice", "average", "_",
)  # fmt: skip
_HEADER_BYTES = 1 << 20


def pair(path: Path) -> tuple[Path, Path]:
    """Name the .hdr and the .cfl that belong to any of: name.hdr, name.cfl, name."""
    base = path.with_suffix("") if path.suffix in {".cfl", ".hdr"} else path
    return base.with_name(base.name + ".hdr"), base.with_name(base.name + ".cfl")


def read_dims(header: Path) -> tuple[int, ...]:
    """Sizes of the array, as the line after ``# Dimensions`` states them."""
    try:
        with header.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("ascii")
    except FileNotFoundError:
        raise InputError(f"{header}: not found; BART keeps the sizes of the .cfl in a .hdr beside it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{header}: cannot be read as a BART header ({type(error).__name__})") from error
    lines = [line.strip() for line in text.splitlines()]
    if "# Dimensions" not in lines[:-1]:
        raise InputError(f"{header}: no line of sizes after '# Dimensions', so this is not a BART header")
    words = lines[lines.index("# Dimensions") + 1].split()
    # isdecimal also accepts other scripts' digits, but the text is ASCII by now
    if not words or not all(word.isdecimal() and len(word) <= 10 and int(word) > 0 for word in words):
        raise InputError(f"{header}: expected positive sizes after '# Dimensions', found {' '.join(words)[:80]!r}")
    dims = tuple(int(word) for word in words)
    if len(dims) > MAX_DIMS:
        raise InputError(f"{header}: {len(dims)} sizes, but BART has at most {MAX_DIMS}")
    return dims


def open_cfl(path: Path) -> NDArray[Any]:
    """Map a .cfl read-only as an array of BART's axes (at least three, axes of length 1 included).

    The file is only read where the result is used.

    Raises
    ------
    InputError
        When one of the pair is missing or the size of the .cfl is not the one that the header states.
    """
    header, data = pair(path)
    dims = read_dims(header)
    count = math.prod(dims)
    try:
        found = data.stat().st_size
    except OSError as error:
        raise InputError(f"{data}: not found beside {header.name} ({type(error).__name__})") from error
    if found != 8 * count:
        raise InputError(
            f"{data}: {found} bytes, but {header.name} declares {'x'.join(map(str, dims))} complex64 values,"
            f" that is {8 * count} bytes; the file is truncated or the header belongs to another one"
        )
    full = dims + (1,) * (3 - len(dims))
    mapped: NDArray[Any] = np.memmap(data, dtype="<c8", mode="r", shape=full, order="F")
    return mapped


def write_cfl(path: Path, array: NDArray[Any], *, overwrite: bool = False) -> None:
    """Write an array (at most 16 axes, in BART's order) as name.cfl and name.hdr, each atomically."""
    if array.ndim > MAX_DIMS or 0 in array.shape:
        raise ValueError(f"write_cfl: expected up to {MAX_DIMS} axes, none of them empty, got shape {array.shape}")
    header, data = pair(path)
    dims = array.shape + (1,) * (MAX_DIMS - array.ndim)
    with atomic_path(header, overwrite=overwrite) as text, atomic_path(data, overwrite=overwrite) as samples:
        np.asarray(array, dtype="<c8").ravel(order="F").tofile(samples)
        text.write_text(f"# Dimensions\n{' '.join(map(str, dims))}\n", encoding="ascii")


class CflReader:
    """K-space in BART's axes: read-out, two phase encodings, coils, … (see :func:`bart_axes`)."""

    name = "cfl"

    def recognises(self, source: "Source") -> bool:
        """Whether the path names one half of a pair whose header is BART's."""
        return is_cfl(source.path)

    def read(self, source: "Source", options: ReadOptions) -> Scan:
        """Read the k-space; ``options.axes`` replaces BART's meaning of the axes."""
        from medrecon.io.readers.assembly import scan_from_array  # which reads masks from .cfl files, too

        array = open_cfl(source.path)
        if options.axes is None:
            return scan_from_array(array, bart_axes(array.shape, source.path), source.path, self.name, options)
        axes = parse_axes(options.axes)
        while array.ndim > len(axes) and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim > len(axes):
            array = array.squeeze()
        return scan_from_array(array, axes, source.path, self.name, options)


def is_cfl(path: Path) -> bool:
    """Whether the path names one half of a BART pair (or both, without ending) whose header is readable."""
    header, data = pair(path)
    try:
        if path.is_dir() or not (header.is_file() and data.is_file()):
            return False
        read_dims(header)
    except (InputError, OSError, ValueError):
        return False
    return path in {header, data} or not path.exists()


def bart_axes(dims: tuple[int, ...], path: Path) -> tuple[str, ...]:
    """Name BART's axes; those without a counterpart here must have length 1.

    A read-out of length 1 beside two phase encodings is a slice cut out of a volume: the phase
    encodings then are y and x.
    """
    axes = list(_BART[: len(dims)])
    if len(dims) > 2 and dims[0] == 1 and dims[2] > 1:
        axes[:3] = ["_", "y", "x"]
    for number, (name, length) in enumerate(zip(axes, dims, strict=True)):
        if name == "_" and length != 1:
            raise InputError(
                f"{path}: BART's axis {number} has length {length}, but k-space is expected to use read-out, phase 1,"
                " phase 2, coil, TE, time, slice and average; name the axes with --axes"
            )
    return tuple(axes)
