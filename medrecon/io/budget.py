"""How much memory a file may claim: decided before a single sample is read."""

import os
from pathlib import Path

from medrecon.errors import InputError

_FALLBACK = 4 << 30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def human(count: int) -> str:
    """Write a number of bytes for a person, e.g. ``1.5 GiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def free_memory() -> int:
    """Bytes that this process can still use: the machine's free memory, or less inside a container."""
    known = [count for count in (_machine(), _container()) if count is not None]
    return min(known) if known else _FALLBACK


def resolve(max_bytes: int | None) -> int:
    """Largest number of bytes that may be read: the user's figure, or half of the free memory."""
    if max_bytes is None:
        return free_memory() // 2
    if max_bytes <= 0:
        raise InputError(f"the largest input size must be a positive number of bytes, got {max_bytes}")
    return max_bytes


def require(nbytes: int, limit: int, *, path: Path, what: str) -> None:
    """Raise :class:`InputError` when ``what`` of ``path`` is larger than ``limit``."""
    if nbytes > limit:
        raise InputError(
            f"{path}: {what} declares {human(nbytes)}, more than the {human(limit)} that may be read; "
            "raise --max-bytes (default: half of the free memory) if the file is right"
        )


def _machine() -> int | None:
    for line in _lines(_MEMINFO):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container() -> int | None:
    # A container's own limit may lie far below what the machine has free (cgroup version 2, then 1).
    for limit, used in (
        (_CGROUP / "memory.max", _CGROUP / "memory.current"),
        (_CGROUP / "memory/memory.limit_in_bytes", _CGROUP / "memory/memory.usage_in_bytes"),
    ):
        values = [line for path in (limit, used) for line in _lines(path)[:1]]
        if len(values) == 2 and all(value.isdigit() for value in values):
            return max(int(values[0]) - int(values[1]), 0)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
