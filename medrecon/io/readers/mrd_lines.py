"""Sort the acquisitions of an ISMRMRD file: what is image, calibration, noise, and where it belongs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io import budget
from medrecon.io.hdf5 import IsmrmrdAcquisitions
from medrecon.io.mrd_header import Encoding


def _bits(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)  # ISMRMRD counts flags from 1


NOISE = _bits(19)
CALIBRATION = _bits(20)
CALIBRATION_AND_IMAGING = _bits(21)
REVERSE = _bits(22)
# navigation, phase correction, feedback (HP, RT), dummy, surface coil correction, phase stabilisation
NOT_IMAGING = _bits(23, 24, 26, 27, 28, 29, 30, 31)
_FIELDS = {
    "flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample",
    "encoding_space_ref", "position", "read_dir", "phase_dir", "slice_dir", "idx",
}  # fmt: skip
_COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
)
_KEPT_FIRST = ("contrast", "phase", "set")
_EMBEDDED, _SEPARATE = {"embedded", "interleaved"}, {"separate", "external", "other"}


@dataclass(frozen=True)
class Lines:
    """Acquisitions by role, as row numbers of the table.

    ``encoding`` is the number of the encoding that they belong to; ``embedded`` says that the
    calibration lines belong to the image as well.
    """

    imaging: NDArray[np.intp]
    calibration: NDArray[np.intp]
    noise: NDArray[np.intp]
    encoding: int
    embedded: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """K-space on its grid: ``kspace`` (slices, kz, ky, coils, kx), ``measured`` (slices, kz, ky, kx)."""

    kspace: NDArray[np.complex64]
    measured: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def sort_lines(
    heads: NDArray[Any], encodings: tuple[Encoding, ...], repetitions: Literal["average", "first"], path: Path
) -> Lines:
    """Tell image, calibration and noise lines apart by their flags, and choose which to use.

    Contrasts, phases and sets are different images: the first of each is kept. Averages and
    repetitions are the same image: all are kept, or the first.
    """
    names = set(heads.dtype.names or ())
    counters = set((heads["idx"].dtype.names or ()) if "idx" in names else ())
    if missing := sorted((_FIELDS - names) | (set(_COUNTERS) - counters)):
        raise InputError(
            f"{path}: the acquisition headers lack {', '.join(missing)}; not the ISMRMRD layout that is known"
        )
    flags = heads["flags"].astype(np.uint64)
    noise = (flags & np.uint64(NOISE)) != 0
    calibration = ((flags & np.uint64(CALIBRATION)) != 0) & ((flags & np.uint64(CALIBRATION_AND_IMAGING)) == 0)
    other = ((flags & np.uint64(NOT_IMAGING)) != 0) & ~noise
    used = ~noise & ~other
    if not (used & ~calibration).any():
        raise InputError(f"{path}: none of the {len(heads)} acquisitions is an image line (all are flagged otherwise)")
    notes = []
    if other.any():
        notes.append(f"{int(other.sum())} navigator, phase-correction, dummy or feedback acquisitions left out")
    encoding = int(heads["encoding_space_ref"][used & ~calibration].min())
    if encoding >= len(encodings):
        raise InputError(f"{path}: acquisitions refer to encoding {encoding}, but the header has {len(encodings)}")
    foreign = used & (heads["encoding_space_ref"] != encoding)
    if foreign.any():
        notes.append(f"{int(foreign.sum())} acquisitions of other encodings than number {encoding} left out")
        used &= ~foreign
    for name in _KEPT_FIRST:
        values = heads["idx"][name]
        first = values[used & ~calibration].min()
        if left := len(np.unique(values[used & ~calibration])) - 1:
            notes.append(f"only {name} {first} is read; {left} more left out")
        used &= (values == first) | calibration
    for name in ("average", "repetition"):
        values = heads["idx"][name]
        count = len(np.unique(values[used & ~calibration]))
        if count > 1:
            notes.append(f"{count} {name}s: {'averaged' if repetitions == 'average' else 'the first one taken'}")
        if repetitions == "first":
            used &= (values == values[used & ~calibration].min()) | calibration
    image, extra = np.flatnonzero(used & ~calibration), np.flatnonzero(used & calibration)
    embedded = _is_embedded(heads, image, extra, encodings[encoding].calibration)
    return Lines(image, extra, np.flatnonzero(noise), encoding, embedded, tuple(notes))


def _is_embedded(heads: NDArray[Any], image: NDArray[np.intp], extra: NDArray[np.intp], mode: str) -> bool:
    """Whether calibration lines complete the image's own grid; without a word in the header, if they fill gaps."""
    if mode in _EMBEDDED or mode in _SEPARATE or not len(extra):
        return mode in _EMBEDDED

    def places(rows: NDArray[np.intp]) -> set[tuple[int, int, int]]:
        idx = heads["idx"][rows]
        return set(
            zip(
                idx["slice"].tolist(),
                idx["kspace_encode_step_1"].tolist(),
                idx["kspace_encode_step_2"].tolist(),
                strict=True,
            )
        )

    return not places(image) & places(extra)


def fill_grid(
    table: IsmrmrdAcquisitions,
    rows: NDArray[np.intp],
    encoding: Encoding,
    slices: NDArray[Any],
    repetitions: Literal["average", "first"],
    path: Path,
    *,
    max_bytes: int | None = None,
) -> Grid:
    """Put acquisitions in their places of the encoded matrix, DC at N//2; lines that repeat are averaged.

    Parameters
    ----------
    rows
        The acquisitions to use.
    slices
        Slice numbers, in the order of the result.
    """
    heads = table.heads[rows]
    channels = np.unique(heads["active_channels"])
    if len(channels) != 1 or channels[0] == 0:
        raise InputError(f"{path}: the acquisitions differ in their number of coils: {channels.tolist()}")
    width, height, depth, notes = _matrix(heads, encoding)
    ky = _places(heads, "kspace_encode_step_1", height, encoding, path, notes)
    kz = _places(heads, "kspace_encode_step_2", depth, encoding, path, notes)
    shape = (len(slices), depth, height, int(channels[0]), width)
    limit = budget.resolve(max_bytes)
    budget.require(3 * 8 * int(np.prod(shape, dtype=object)), limit, path=path, what="k-space on its grid")
    kspace = np.zeros(shape, np.complex64)
    count = np.zeros((*shape[:3], width), np.uint32)
    number = {int(slice_): index for index, slice_ in enumerate(slices)}
    for line, row in enumerate(rows):
        head = heads[line]
        samples = table.samples[table.offsets[row] : table.offsets[row + 1]].reshape(int(channels[0]), -1)
        source, target = _span(head, width, int(row), path)
        if int(head["flags"]) & REVERSE:
            samples = samples[:, ::-1]
        at = (number[int(head["idx"]["slice"])], kz[line], ky[line])
        if repetitions == "first" and count[at].any():
            continue
        kspace[at][:, target] += samples[:, source]
        count[at][target] += 1
    if count.max() > 1:
        kspace /= np.maximum(count, 1)[..., None, :]
    return Grid(kspace, count > 0, tuple(notes))


def _matrix(heads: NDArray[Any], encoding: Encoding) -> tuple[int, int, int, list[str]]:
    """Take the encoded matrix; a multi-slice scan whose header counts slices as kz is 2-D."""
    width, height, depth = encoding.encoded.matrix
    notes = []
    if depth > 1 and not heads["idx"]["kspace_encode_step_2"].any():
        notes.append(f"the header says {depth} partitions, but the scan has no second phase encoding: read as 2-D")
        depth = 1
    return width, height, depth, notes


def _places(
    heads: NDArray[Any], name: str, size: int, encoding: Encoding, path: Path, notes: list[str]
) -> NDArray[np.intp]:
    """Positions along a phase encoding: the counter's centre goes to size // 2."""
    steps = heads["idx"][name].astype(np.intp)
    limit = encoding.limits.get(name.replace("encode", "encoding"))
    centre = limit.center if limit is not None else size // 2
    if centre == 0 and size > 1:
        centre = size // 2  # a scan that starts at DC has half of k-space at most: a converter left this unset
        notes.append(f"the header does not give the centre of {name}: {centre} assumed")
    places: NDArray[np.intp] = steps - centre + size // 2 if size > 1 else steps
    wrong = np.flatnonzero((places < 0) | (places >= size))
    if len(wrong):
        raise InputError(
            f"{path}: acquisition with {name} {steps[wrong[0]]} (centre {centre}) lies outside the encoded matrix of"
            f" {size} lines; the header is wrong or belongs to another file"
        )
    return places


def _span(head: np.void, width: int, row: int, path: Path) -> tuple[slice, slice]:
    """Which samples of a (forward) line are used, and where they go along kx."""
    count, pre, post = (int(head[name]) for name in ("number_of_samples", "discard_pre", "discard_post"))
    centre = int(head["center_sample"]) or count // 2  # 0: not set
    if pre + post >= count or centre >= count:
        raise InputError(
            f"{path}: acquisition {row}: {count} samples with centre {centre}, of which {pre} + {post} to discard"
        )
    if int(head["flags"]) & REVERSE:  # discards are counted in time, the centre along k
        pre, post = post, pre
    start = width // 2 - centre
    first, last = max(pre, -start), min(count - post, width - start)
    lost = (count - post - pre) - (last - first)
    if last <= first or lost > count // 8:
        raise InputError(
            f"{path}: acquisition {row}: {count} samples with centre {centre} do not fit the encoded matrix of {width}"
            " samples; the header's encodedSpace must include the read-out oversampling"
        )
    return slice(first, last), slice(first + start, last + start)


def full_block(measured: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Find a rectangle of (kz, ky) without gaps: the bounding box, trimmed where most is missing."""
    if not measured.any():
        return None
    rows, columns = np.flatnonzero(measured.any(axis=1)), np.flatnonzero(measured.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    while top < bottom and left < right:
        box = measured[top:bottom, left:right]
        if box.all():
            return slice(top, bottom), slice(left, right)
        # far edges first where several lack the same share, so that the middle of k-space stays
        centre = measured.shape[0] / 2 - 0.5, measured.shape[1] / 2 - 0.5
        edges = [
            (1 - box[0].mean(), abs(top - centre[0]), 0), (1 - box[-1].mean(), abs(bottom - 1 - centre[0]), 1),
            (1 - box[:, 0].mean(), abs(left - centre[1]), 2), (1 - box[:, -1].mean(), abs(right - 1 - centre[1]), 3),
        ]  # fmt: skip
        side = max(edge for edge in edges if (box.shape[0] > 1 if edge[2] < 2 else box.shape[1] > 1))[2]
        top, bottom = top + (side == 0), bottom - (side == 1)
        left, right = left + (side == 2), right - (side == 3)
    return None
