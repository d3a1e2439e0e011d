"""NaN and Inf are found, counted and located."""

from pathlib import Path

import numpy as np
import pytest

from medrecon.errors import NumericalError
from medrecon.io.readers.finite import require_finite


def test_clean_array_passes_untouched():
    array = np.ones((2, 3), np.complex64)
    assert require_finite(array, "error", Path("a"), "k-space") == (array, ())


def test_bad_samples():
    array = np.ones((2, 3), np.complex64)
    array[1, 0], array[1, 2] = np.nan, np.inf
    with pytest.raises(NumericalError, match=r"a: k-space: 2 of 6 samples .* first at \(1, 0\); use --nonfinite zero"):
        require_finite(array, "error", Path("a"), "k-space")
    repaired, notes = require_finite(array, "zero", Path("a"), "k-space")
    assert repaired.tolist() == [[1, 1, 1], [0, 1, 0]]
    assert repaired.dtype == np.complex64
    assert "replaced by 0" in notes[0]
