"""An input file, identified by what stands in it and never by its name."""

import os
import stat
from functools import cached_property
from pathlib import Path
from types import TracebackType

from medrecon.errors import InputError
from medrecon.io._hdf5_process import Limits
from medrecon.io.budget import resolve
from medrecon.io.hdf5 import Hdf5File

_HEAD = 4096
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024, 2048)


class Source:
    """A regular, readable, non-empty file; opened once and shared by all readers that look at it.

    Parameters
    ----------
    path
        The file.
    max_bytes
        Largest declared size that may be read; None takes half of the free memory.
    limits
        Bounds for the HDF5 child process.

    Attributes
    ----------
    head
        The first 4 KiB.
    size
        Bytes in the file.
    max_bytes
        The budget, resolved.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.max_bytes = resolve(max_bytes)
        self._limits = limits
        self.head, self.size = _look(self.path)

    @cached_property
    def hdf5(self) -> Hdf5File | None:
        """The file as HDF5, or None where the signature is missing."""
        length = len(_HDF5_SIGNATURE)
        if not any(self.head[start : start + length] == _HDF5_SIGNATURE for start in _HDF5_OFFSETS):
            return None
        return Hdf5File(self.path, max_bytes=self.max_bytes, limits=self._limits)

    def close(self) -> None:
        """End the HDF5 child process, if one was started."""
        if "hdf5" in self.__dict__ and self.hdf5 is not None:
            self.hdf5.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _look(path: Path) -> tuple[bytes, int]:
    """First bytes and size, or an :class:`InputError` that says what stands in the way."""
    try:
        # Not blocking: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the spelling and the folder") from None
    except PermissionError:
        raise InputError(f"{path} may not be read (permission denied); change its permissions or copy it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({type(error).__name__}: {_reason(error)})") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder, expected a file; name one file in it")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a regular file (a device, pipe or socket); write the data to a file first")
        if status.st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy it again from its source")
        return os.pread(descriptor, _HEAD, 0), status.st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {_reason(error)})") from None
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)
