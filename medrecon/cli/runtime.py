"""What all commands share at run time: exit codes, log, threads, device."""

import errno
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from medrecon.errors import MedreconError, UsageError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]

TRACEBACK = "MEDRECON_TRACEBACK"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def exit_code_of(error: BaseException) -> int:
    """Say on standard error what went wrong, without a traceback, and return the exit code."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        say("interrupted; nothing half-written was left behind")
        return 130
    if isinstance(error, MedreconError):
        say(f"error: {error}")
        return error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        say("error: out of memory; try fewer --slices at a time, or --device cpu")
        return 5
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # whoever read our output has gone; the interpreter must not flush into it
        return 1
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        say(f"error: {error}; free some space or choose another place")
        return 1
    say(
        f"error: {type(error).__name__}: {error}\nThis is a fault of medrecon. Please report it with the output of "
        f"'medrecon doctor' and of this command run with {TRACEBACK}=1 in the environment"
    )
    return 1


def say(message: str) -> None:
    """Print to standard error."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 (the command line's own voice)


def without_closed_streams() -> None:
    """Let output go nowhere where the caller has closed a standard stream (``>&-``): Python then has None there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (lives as long as the process)
            setattr(sys, name, nowhere)


def spare_inputs(outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raise UsageError if an output is one of the inputs: not even --overwrite may replace measurements."""
    sources = [path for path in inputs if path is not None and path.exists()]
    for output in outputs:
        if output.exists() and any(output.samefile(source) for source in sources):
            raise UsageError(f"{output}: is one of the inputs and would be replaced; choose another name or folder")


def stop_on_terminate() -> None:
    """Let SIGTERM end the work as Ctrl-C does: temporary files are removed on the way out."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if hasattr(signal, "SIGTERM") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def set_up_log(*, quiet: bool) -> None:
    """Send what the library has to say to standard error: warnings always, the rest unless ``quiet``."""

    class Printer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            prefix = "warning: " if record.levelno >= logging.WARNING else ""
            say(f"{prefix}{record.getMessage()}")

    logger = logging.getLogger("medrecon")
    logger.handlers = [Printer()]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def available_threads() -> int:
    """Return the processors this process may use: its affinity, and the quota of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no control group, or one without a quota ("max")
    return count


def set_up_torch(device: Device, threads: int | None) -> "torch.device":
    """Choose device and thread count; "auto" takes CUDA where there is a usable one."""
    import torch

    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: expected at least 1")
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or available_threads())
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no usable CUDA device ('medrecon doctor' tells why); use --device cpu")
    chosen = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    return torch.device(chosen)
