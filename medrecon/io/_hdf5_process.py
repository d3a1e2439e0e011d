"""The parent's end of the pipe to :mod:`medrecon.io._hdf5_worker`: start, ask, bound in time, end."""

import contextlib
import fcntl
import importlib.util
import json
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError

# The isolated interpreter must find numpy and h5py before the worker is read, wherever ours found them.
_START = (
    "import json, runpy, sys; sys.argv.pop(0); sys.path.extend(json.loads(sys.argv.pop())); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
_WORKER = Path(__file__).with_name("_hdf5_worker.py")
_HEADER_BYTES = 64 << 20
_PIPE = 1 << 20
_KINDS = frozenset("biufcS")


@dataclass(frozen=True)
class Limits:
    """Bounds on the child process and on what a file may contain.

    Parameters
    ----------
    metadata_seconds
        Wall time for a request without bulk data.
    bytes_per_second
        Slowest reading speed that is not taken for a hang.
    start_seconds
        Wall time for the child to start and import its libraries.
    headroom_bytes
        Address space of the child beyond the budget for data.
    objects, depth
        Largest number of links and deepest nesting of groups.
    ratio
        Largest ratio of declared to stored size.
    text_bytes
        Longest text that is read.
    """

    metadata_seconds: float = 30.0
    bytes_per_second: float = 10e6
    start_seconds: float = 120.0
    headroom_bytes: int = 4 << 30
    objects: int = 10_000
    depth: int = 16
    ratio: int = 200
    text_bytes: int = 1 << 20


class Refusal(Exception):  # noqa: N818 -- an answer, turned into an InputError by the client
    """The child answered that it cannot do what was asked; ``kind`` says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Hdf5Process:
    """A child process that holds one file open; started at the first request, and again after it died."""

    def __init__(self, path: Path, max_bytes: int, limits: Limits) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes], int], Hdf5Process] | None = None

    def ask(self, request: Mapping[str, Any], *, nbytes: int = 0) -> tuple[Any, list[NDArray[Any]]]:
        """Return result and arrays for one request; ``nbytes`` of bulk data lengthen the time it may take."""
        seconds = self._limits.metadata_seconds + nbytes / self._limits.bytes_per_second
        with self._lock:
            child = self._running()
            return self._exchange(child, {**request, "seconds": math.ceil(seconds)}, seconds)

    def close(self) -> None:
        """End the child process; harmless when there is none."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and (self._owner != os.getpid() or self._child.poll() is not None):
            self._end()  # after a fork the child is not ours to talk to: two askers would garble one pipe
        if self._child is None:
            self._child = self._start()
            self._owner = os.getpid()
            self._finalizer = weakref.finalize(self, _end_child, self._child, self._owner)
            self._exchange(self._child, None, self._limits.start_seconds)
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        limits = {
            "bytes": self._max_bytes,
            "memory": self._max_bytes + self._limits.headroom_bytes,
            "objects": self._limits.objects,
            "depth": self._limits.depth,
            "ratio": self._limits.ratio,
            "text": self._limits.text_bytes,
        }
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HDF5_"))}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
        child = subprocess.Popen(  # noqa: S603 -- this very interpreter and a file of this package
            [
                sys.executable,
                "-I",
                "-c",
                _START,
                _WORKER,
                self._path,
                json.dumps(limits),
                json.dumps(_library_folders()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        _widen(child)
        return child

    def _exchange(
        self, child: subprocess.Popen[bytes], request: Mapping[str, Any] | None, seconds: float
    ) -> tuple[Any, list[NDArray[Any]]]:
        """Send a request (None: just wait for the greeting) and read the reply, within ``seconds``."""
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            child.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        healthy = False
        try:
            if request is not None:
                _write(child, request)
            header = self._header(child)
            arrays = [self._array(child, described) for described in header["arrays"]]
            healthy = True
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(self._obituary(expired.is_set(), seconds)) from error
        finally:
            timer.cancel()
            timer.join()
            if expired.is_set() or not healthy:  # also after Ctrl-C: an unread reply would answer the next request
                self._end()
        if not header["ok"]:
            raise Refusal(str(header["kind"]), str(header["message"]))
        return header["result"], arrays

    def _obituary(self, expired: bool, seconds: float) -> str:
        what = f"gave no answer within {seconds:.0f} s" if expired else "crashed"
        return (
            f"{self._path} could not be read: the HDF5 library {what} on it, so the file is probably corrupt "
            "(or its drive very slow); copy it again from its source, or repair it with h5repack"
        )

    def _header(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        line = _stdout(child).readline(_HEADER_BYTES)
        if not line.endswith(b"\n"):
            raise EOFError
        header = json.loads(line)
        if not isinstance(header, dict):
            raise TypeError
        return header

    def _array(self, child: subprocess.Popen[bytes], described: Mapping[str, Any]) -> NDArray[Any]:
        dtype = dtype_from_json(described["dtype"])
        shape = tuple(int(length) for length in described["shape"])
        # Twice: besides the samples there are offsets and headers. The child has checked the samples already.
        if math.prod(shape) * dtype.itemsize > 2 * self._max_bytes:
            raise ValueError
        array = np.empty(shape, dtype)
        if array.nbytes:
            view = memoryview(array.reshape(-1).view(np.uint8).data)
            while view:
                count = _stdout(child).readinto(view)  # type: ignore[attr-defined]
                if not count:
                    raise EOFError
                view = view[count:]
        return array

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer = None
        self._child = None


def dtype_from_json(described: Any) -> np.dtype[Any]:  # noqa: ANN401 -- parsed JSON, checked here
    """Inverse of the child's ``describe_dtype``; plain numbers, texts and structures of them only."""
    if isinstance(described, str):
        dtype = np.dtype(described)
        if dtype.kind not in _KINDS:
            raise ValueError(f"unexpected type {described!r}")
        return dtype
    if "base" in described:
        return np.dtype((dtype_from_json(described["base"]), tuple(described["shape"])))
    formats = [dtype_from_json(form) for form in described["formats"]]
    return np.dtype(
        {
            "names": [str(name) for name in described["names"]],
            "formats": formats,
            "offsets": [int(offset) for offset in described["offsets"]],
            "itemsize": int(described["itemsize"]),
        }
    )


def _library_folders() -> list[str]:
    """Folders of numpy and h5py, for installations that the isolated child would not find by itself."""
    folders = []
    for name in ("numpy", "h5py"):
        spec = importlib.util.find_spec(name)
        folders += [str(Path(place).parent) for place in (spec and spec.submodule_search_locations) or ()]
    return sorted(set(folders))


def _widen(child: subprocess.Popen[bytes]) -> None:
    """Let bulk data through in large steps; where that is not allowed they come in small ones."""
    resize = getattr(fcntl, "F_SETPIPE_SZ", None)
    if resize is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(_stdout(child).fileno(), resize, _PIPE)


def _stdout(child: subprocess.Popen[bytes]) -> IO[bytes]:
    if child.stdout is None:
        raise EOFError
    return child.stdout


def _write(child: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    if child.stdin is None:
        raise EOFError
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()


def _end_child(child: subprocess.Popen[bytes], owner: int) -> None:
    """Kill and reap; in a forked copy of the owner only let go of the pipe."""
    ours = os.getpid() == owner
    if ours:
        child.kill()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if ours:
        child.wait()
    else:
        child.returncode = 0
