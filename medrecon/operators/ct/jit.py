"""Compiling kernels with numba, and running them in the threads that this process may use.

numba's own parallel loops are left alone: its thread pools abort the process when two Python threads
enter them at once or when a data loader forks after them. Kernels release the interpreter lock
instead, and plain threads run them on parts of the work.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numba
import torch

F = TypeVar("F", bound=Callable[..., Any])

# contract: a * b + c becomes one fused operation. No other licence: both directions of a pair
# compute the same weights only if the compiler does not rearrange sums.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def compiled(function: F) -> F:
    """Compile a kernel; the machine code is kept on disk where some cache folder can be written."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no cache folder: a read-only installation without a home
        return numba.njit(**_OPTIONS)(function)


def run_threads(work: Callable[[int, int], object], count: int) -> None:
    """Call ``work(start, stop)`` on equal parts of range(count), one a thread of torch's number of threads.

    ``torch.get_num_threads()`` follows the affinity of the process, OMP_NUM_THREADS and ``--threads``.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    cuts = [round(count * part / threads) for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, start, stop) for start, stop in pairwise(cuts)]:
            future.result()
