"""Threads and the disk cache of compiled kernels."""

import threading

import pytest
import torch

pytest.importorskip("numba")

from medrecon.operators.ct.jit import compiled, run_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_cover_everything_once(threads):
    before, parts, names = torch.get_num_threads(), [], set()

    def work(start, stop):
        parts.extend(range(start, stop))
        names.add(threading.current_thread().name)

    try:
        torch.set_num_threads(threads)
        run_threads(work, 10)
        run_threads(work, 0)
    finally:
        torch.set_num_threads(before)
    assert sorted(parts) == list(range(10))


def test_an_error_in_a_thread_is_raised():
    before = torch.get_num_threads()

    def work(start, stop):
        raise ValueError("broken")

    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="broken"):
            run_threads(work, 4)
    finally:
        torch.set_num_threads(before)


def test_without_a_cache_folder_kernels_are_compiled_anyway(monkeypatch):
    import numba

    real, calls = numba.njit, []

    def refusing(**options):
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    twice = compiled(lambda x: 2 * x)
    assert twice(3) == 6
    assert [options.get("cache") for options in calls] == [True, None]
