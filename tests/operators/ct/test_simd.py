"""Vectors in compiled code."""

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from medrecon.operators.ct.simd import LANES, add, add_scaled, load, store, zeros  # noqa: E402 (needs numba)


@numba.njit
def combine(a, b, weight, out):
    total = zeros(a)
    total = add_scaled(total, weight, load(a, 3))
    store(out, 1, add(total, load(b, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, LANES + 5)).astype(dtype)
    out = np.zeros(LANES + 4, dtype)
    combine(a, b, dtype(1.7), out)
    assert np.allclose(out[1 : LANES + 1], dtype(1.7) * a[3 : LANES + 3] + b[:LANES], rtol=1e-6)
    assert out[0] == 0 == out[LANES + 1]
