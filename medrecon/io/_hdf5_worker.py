"""The child process that alone touches an untrusted HDF5 file.

Started as ``_hdf5_worker.py FILE LIMITS`` in an isolated interpreter by :mod:`medrecon.io._hdf5_process`; imports
nothing of medrecon, so that it starts quickly and holds nothing worth corrupting. A corrupt file can
make the HDF5 library crash or loop for ever (not even a signal handler runs then), hence a process that
the parent may kill.

A request is one line of JSON on standard input; the reply is one line of JSON on standard output followed
by the raw bytes of the arrays it names. Nothing is ever pickled, and no text of the file or of the HDF5
library goes into an error.
"""

import importlib.util
import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Array: TypeAlias = NDArray[np.generic]

# What h5py was seen to raise on damaged files; anything else ends the child, which the parent reports.
DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    AttributeError,
    ArithmeticError,
    ValueError,
    TypeError,
    NotImplementedError,
    struct.error,
)
DAMAGED = "is damaged"
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
RATIO_FLOOR = 16 << 20  # below this size a decompression bomb does no harm, while masks do compress 1000-fold
ATTRIBUTES = 256  # per object
ATTRIBUTE_VALUES = 1024
ATTRIBUTE_CHARACTERS = 65536
LIMITABLE = importlib.util.find_spec("resource") is not None  # elsewhere the parent's wall limit stands alone


class Refused(Exception):  # noqa: N818 -- not an error of the program: the answer to the request
    """The request cannot be answered; ``kind`` tells the parent how to word it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def describe_dtype(dtype: np.dtype) -> Json:
    """JSON form of a dtype without objects; the parent's ``dtype_from_json`` is the inverse."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe_dtype(base), "shape": list(shape)}
    if dtype.names is not None and dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [describe_dtype(field[0]) for field in fields],
            "offsets": [int(field[1]) for field in fields],
            "itemsize": dtype.itemsize,
        }
    return dtype.str


def is_complex_pair(dtype: np.dtype) -> bool:
    """Whether this is a compound of a real and an imaginary number (MATLAB, h5py, others)."""
    if dtype.names is None or dtype.fields is None:
        return False
    names = tuple(name.lower() for name in dtype.names)
    return names in (("r", "i"), ("re", "im"), ("real", "imag")) and all(
        dtype.fields[name][0].kind in "iuf" for name in dtype.names
    )


def readable_dtype(dtype: np.dtype) -> np.dtype | None:
    """Dtype in which the values are handed over: native byte order, complex pairs as complex; or None."""
    if dtype.hasobject or dtype.itemsize == 0:
        return None
    if is_complex_pair(dtype):
        wide = any(dtype[index].itemsize > (4 if dtype[index].kind == "f" else 2) for index in range(2))
        return np.dtype(np.complex128 if wide else np.complex64)
    if dtype.names is not None:
        kinds = (dtype[index].base for index in range(len(dtype.names)))
        return dtype.newbyteorder("=") if all(readable_dtype(kind) is not None for kind in kinds) else None
    if dtype.kind in "biuS":
        return np.dtype(dtype.str).newbyteorder("=")
    if dtype.kind == "f":
        return np.dtype(f"f{min(dtype.itemsize, 8)}")
    if dtype.kind == "c":
        return np.dtype(f"c{min(dtype.itemsize, 16)}")
    return None


def convert(array: Array, dtype: np.dtype) -> Array:
    """Contiguous array of the dtype that ``readable_dtype`` promised."""
    if dtype.kind == "c" and array.dtype.names is not None:
        pair: NDArray[np.void] = array.astype(array.dtype, copy=False)
        real, imaginary = array.dtype.names
        result = np.empty(array.shape, dtype)
        result.real = pair[real]
        result.imag = pair[imaginary]
        return result
    return np.asarray(array, dtype=dtype, order="C")


class Worker:
    """One opened file and its index."""

    def __init__(self, path: str, limits: dict[str, int]) -> None:
        self.path = path
        self.limits = limits
        self._file: h5py.File | None = None
        self._index: dict[str, dict[str, Json]] = {}
        self._refused: dict[str, Json] = {}

    def _opened(self) -> "h5py.File":
        """Return the file, opened and indexed at the first request."""
        if self._file is None:
            import h5py

            self._file = h5py.File(self.path, "r", locking=False)  # a reader must not keep others from their file
            self._walk(self._file)
        return self._file

    # -- index ---------------------------------------------------------------------------------

    def index(self) -> dict[str, Json]:
        """All datasets that hard links reach, without touching variable-length data."""
        self._opened()
        return {"datasets": dict(self._index), "refused": self._refused}

    def _walk(self, file: "h5py.File") -> None:
        import h5py

        pending: list[tuple[str, h5py.Group]] = [("", file)]
        seen = {h5py.h5o.get_info(file.id).addr}
        count = 0
        while pending:
            prefix, group = pending.pop()
            for name in group:
                count += 1
                if count > self.limits["objects"]:
                    raise Refused("refused", f"holds more than {self.limits['objects']} objects")
                where = f"{prefix}/{name}" if prefix else name
                try:
                    item = self._resolve(group, name)
                    if isinstance(item, h5py.Dataset):
                        self._index[where] = self._describe(item)
                    elif isinstance(item, h5py.Group):
                        address = h5py.h5o.get_info(item.id).addr
                        if address in seen:  # a hard link back to an ancestor
                            continue
                        seen.add(address)
                        if where.count("/") >= self.limits["depth"]:
                            self._refused[where] = f"nests groups deeper than {self.limits['depth']}"
                        else:
                            pending.append((where, item))
                except Refused as refusal:
                    self._refused[where] = str(refusal)
                except DAMAGE:
                    self._refused[where] = DAMAGED

    def _resolve(self, group: "h5py.Group", name: str) -> "h5py.HLObject":
        """Object behind one link; soft links only as far as hard links of this file lead."""
        import h5py

        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            target = PurePosixPath(link.path)
            place: h5py.HLObject = group.file if target.is_absolute() else group
            for part in (part for part in target.parts if part not in ("/", ".")):
                if not isinstance(place, h5py.Group) or not isinstance(place.get(part, getlink=True), h5py.HardLink):
                    raise Refused("refused", "is a link that leaves this file or leads nowhere")
                place = place[part]
            return place
        if not isinstance(link, h5py.HardLink):
            raise Refused("refused", "is a link into another file")
        return group[name]

    def _describe(self, dataset: "h5py.Dataset") -> dict[str, Json]:
        import h5py

        shape = dataset.shape
        dtype = dataset.dtype
        handed = readable_dtype(dtype)
        size = 0 if shape is None else int(np.prod([int(length) for length in shape], dtype=object))
        return {
            "shape": None if shape is None else [int(length) for length in shape],
            "dtype": None if handed is None else describe_dtype(handed),
            "fields": list(dtype.names or ()),
            "text": h5py.check_string_dtype(dtype) is not None,
            "nbytes": size * (handed or dtype).itemsize,
            "stored": int(dataset.id.get_storage_size()),
            "chunks": None if dataset.chunks is None else [int(length) for length in dataset.chunks],
            "refused": self._objection(dataset),
        }

    def _objection(self, dataset: "h5py.Dataset") -> str | None:
        """Why the data of this dataset must not be touched."""
        plist = dataset.id.get_create_plist()
        if dataset.is_virtual:
            return "is a virtual dataset (its values lie in other files)"
        if plist.get_external_count() > 0:
            return "keeps its values in an external file"
        if dataset.file.filename != self.path:
            return "belongs to another file"
        for number in range(plist.get_nfilters()):
            code = int(plist.get_filter(number)[0])
            if code not in FILTERS:
                return f"uses the HDF5 filter {code}; supported are {', '.join(FILTERS.values())}"
        return None

    def _open(self, name: str) -> tuple["h5py.Dataset", dict[str, Json]]:
        """Dataset whose values may be read."""
        file = self._opened()
        if name not in self._index:
            raise Refused("refused", str(self._refused.get(name, "is not in the file")))
        info = self._index[name]
        if info["refused"] is not None:
            raise Refused("refused", str(info["refused"]))
        group: h5py.HLObject = file
        for part in name.split("/"):
            group = self._resolve(group, part)
        objection = self._objection(group)
        if objection is not None:
            raise Refused("refused", objection)
        nbytes, stored = int(str(info["nbytes"])), int(str(info["stored"]))
        if nbytes > 0 and stored == 0:
            raise Refused("refused", f"declares {nbytes} bytes but none were ever written")
        if nbytes > max(RATIO_FLOOR, self.limits["ratio"] * stored):
            raise Refused(
                "refused",
                f"declares {nbytes} bytes but stores {stored}: more than {self.limits['ratio']} times as much, "
                "which looks like a decompression bomb",
            )
        return group, info

    # -- values --------------------------------------------------------------------------------

    def read(self, name: str, selection: list[int | list[int]]) -> Array:
        """Values of a numeric dataset."""
        dataset, _ = self._open(name)
        dtype = readable_dtype(dataset.dtype)
        if dtype is None:
            raise Refused("refused", "has a type that is not numeric")
        chosen = tuple(slice(*part) if isinstance(part, list) else part for part in selection)
        self._afford(self._selected(dataset.shape or (), selection) * dtype.itemsize)
        if dataset.chunks is not None:  # the library expands a whole chunk to hand out one of its values
            self._afford(int(np.prod(dataset.chunks, dtype=object)) * dtype.itemsize)
        return convert(np.asarray(dataset[chosen]), dtype)

    @staticmethod
    def _selected(shape: tuple[int, ...], selection: list[int | list[int]]) -> int:
        count = 1
        for axis, length in enumerate(shape):
            part = selection[axis] if axis < len(selection) else [0, int(length), 1]
            count *= len(range(*part)) if isinstance(part, list) else 1
        return count

    def _afford(self, nbytes: int) -> None:
        if nbytes > self.limits["bytes"]:
            raise Refused("budget", str(nbytes))

    def text(self, name: str) -> str:
        """Value of a string dataset with one element."""
        import h5py

        dataset, info = self._open(name)
        if not info["text"] or dataset.shape is None or dataset.size != 1:
            raise Refused("refused", "is not a single string")
        kind = h5py.check_string_dtype(dataset.dtype)
        if kind.length is not None and kind.length > self.limits["text"]:
            raise Refused("refused", f"is a text of {kind.length} bytes, more than {self.limits['text']}")
        value = np.asarray(dataset[()]).reshape(-1)[0]
        raw = value.encode() if isinstance(value, str) else bytes(value)
        if len(raw) > self.limits["text"]:
            raise Refused("refused", f"is a text of {len(raw)} bytes, more than {self.limits['text']}")
        return raw.rstrip(b"\0").decode("utf-8", errors="replace")

    # -- attributes ----------------------------------------------------------------------------

    def attributes(self) -> dict[str, Json]:
        """Short plain attributes of the root, the groups and the datasets."""
        import h5py

        file = self._opened()
        found: dict[str, Json] = {"": self._attributes_of(file)}
        groups = {str(parent) for name in self._index for parent in PurePosixPath(name).parents if str(parent) != "."}
        for name in sorted(groups | set(self._index)):
            place: h5py.HLObject = file
            for part in name.split("/"):
                place = self._resolve(place, part)
            values = self._attributes_of(place)
            if values:
                found[name] = values
        return found

    @staticmethod
    def _attributes_of(place: "h5py.HLObject") -> dict[str, Json]:
        import h5py

        found: dict[str, Json] = {}
        for name in list(place.attrs)[:ATTRIBUTES]:
            kind = h5py.h5a.open(place.id, name.encode())
            dtype = kind.dtype
            is_text = h5py.check_string_dtype(dtype) is not None
            count = int(np.prod(kind.shape or (), dtype=object))
            if kind.shape is None or count > ATTRIBUTE_VALUES or not (is_text or dtype.kind in "biuf"):
                continue
            value = plain_attribute(np.asarray(place.attrs[name]))
            if value is not None:
                found[name] = value
        return found

    # -- ISMRMRD -------------------------------------------------------------------------------

    def ismrmrd(self, group: str) -> list[Array]:
        """Heads, samples, offsets, trajectories and their offsets of an ISMRMRD acquisition table."""
        dataset, _ = self._open(f"{group}/data" if group else "data")
        dtype = dataset.dtype
        if dataset.ndim != 1 or dtype.names is None or not {"head", "traj", "data"} <= set(dtype.names):
            raise Refused("refused", "is not a table of ISMRMRD acquisitions (head, traj, data)")
        head = readable_dtype(dtype["head"])
        wanted = ("number_of_samples", "active_channels", "trajectory_dimensions")
        if head is None or head.names is None or not set(wanted) <= set(head.names):
            raise Refused("refused", "has acquisition headers of an unknown layout")
        rows = int(dataset.shape[0])
        self._afford(rows * head.itemsize)
        heads = convert(np.asarray(dataset.fields("head")[()]), head)
        samples, channels, dimensions = (heads[name].astype(object) for name in wanted)  # type: ignore[call-overload]
        values = samples * channels
        steps = samples * dimensions
        self._afford(int(sum(values)) * 8 + int(sum(steps)) * 4 + rows * head.itemsize)
        offsets = np.concatenate([[0], np.cumsum(values.astype(np.int64))]).astype(np.int64)
        corners = np.concatenate([[0], np.cumsum(steps.astype(np.int64))]).astype(np.int64)
        data = np.empty(int(offsets[-1]), np.complex64)
        trajectory = np.empty(int(corners[-1]), np.float32)
        for row, (path, line) in enumerate(self._rows(dataset)):
            for name, found, expected in (("data", line.size, 2 * values[row]), ("traj", path.size, steps[row])):
                if found != expected:
                    message = f"holds {found} numbers in '{name}' of acquisition {row}, whose header says {expected}"
                    raise Refused("refused", message)
            data[offsets[row] : offsets[row + 1]] = np.ascontiguousarray(line, np.float32).view(np.complex64)
            trajectory[corners[row] : corners[row + 1]] = path
        return [heads, data, offsets, trajectory, corners]

    @staticmethod
    def _rows(dataset: "h5py.Dataset") -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Trajectory and samples of each acquisition, read in blocks."""
        block = 64
        for start in range(0, int(dataset.shape[0]), block):
            table = dataset[start : start + block]
            for row in table:
                path, line = np.asarray(row["traj"]), np.asarray(row["data"])
                if line.dtype.kind == "c":
                    line = line.astype(np.complex64).view(np.float32)
                yield path.reshape(-1), line.reshape(-1)


def plain_attribute(value: Array) -> Json:
    """Python value of an attribute: text, number, or a list of them; None for one that is too long."""
    items = [
        item.decode("utf-8", errors="replace").rstrip("\0") if isinstance(item, bytes) else item
        for item in value.reshape(-1).tolist()
    ]
    if not all(isinstance(item, str | int | float | bool) for item in items):
        return None
    if sum(len(item) for item in items if isinstance(item, str)) > ATTRIBUTE_CHARACTERS:
        return None
    return items[0] if len(items) == 1 and value.ndim == 0 else items


def restrict(memory: int) -> None:
    """Bound this process: no core files, no writing, no more memory than the budget and the libraries need."""
    if not LIMITABLE:
        return
    import resource

    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, memory),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (limit, hard))
        except (OSError, ValueError):  # macOS refuses RLIMIT_AS
            continue


def allow_seconds(seconds: int) -> None:
    """Let this request use so much processor time: it ends a looping child even when the parent is gone."""
    if not LIMITABLE:
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def answer(worker: Worker, request: dict[str, Json]) -> tuple[Json, list[Array]]:
    """Return result and arrays for one request."""
    allow_seconds(int(str(request["seconds"])))
    operation, name = request["op"], str(request.get("name", ""))
    if operation == "index":
        return worker.index(), []
    if operation == "attributes":
        return worker.attributes(), []
    if operation == "text":
        return worker.text(name), []
    if operation == "ismrmrd":
        return None, worker.ismrmrd(name)
    return None, [worker.read(name, request["selection"])]  # type: ignore[arg-type]


def reply(stream: IO[bytes], header: dict[str, Json], arrays: list[Array]) -> None:
    """Send one header line and the bytes of the arrays it announces."""
    header["arrays"] = [{"dtype": describe_dtype(array.dtype), "shape": list(array.shape)} for array in arrays]
    stream.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        if array.nbytes:
            stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def main() -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; its end of the pipe closes
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not reach the protocol
    limits = json.loads(sys.argv[2])
    restrict(limits["memory"])
    try:
        import h5py  # noqa: F401 -- a missing library is reported before anything else
    except ImportError:
        reply(stream, {"ok": False, "kind": "start", "message": "h5py cannot be imported"}, [])
        return
    reply(stream, {"ok": True, "result": None}, [])
    worker = Worker(sys.argv[1], limits)
    for line in sys.stdin.buffer:
        try:
            result, arrays = answer(worker, json.loads(line))
        except Refused as refusal:
            header: dict[str, Json] = {"ok": False, "kind": refusal.kind, "message": str(refusal)}
            reply(stream, header, [])
        except MemoryError:
            reply(stream, {"ok": False, "kind": "memory", "message": ""}, [])
        except DAMAGE as error:
            reply(stream, {"ok": False, "kind": "damaged", "message": type(error).__name__}, [])
        else:
            reply(stream, {"ok": True, "result": result}, arrays)


if __name__ == "__main__":
    main()
