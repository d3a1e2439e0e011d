"""NaN and Inf, caught before a transform could spread them over a whole slice."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import NumericalError


def require_finite(
    array: NDArray[Any], nonfinite: Literal["error", "zero"], path: Path, what: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the array free of NaN and Inf, and a note where samples were replaced.

    Raises
    ------
    NumericalError
        When there are such samples and ``nonfinite`` is "error".
    """
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if not count:
        return array, ()
    place = tuple(int(index) for index in np.unravel_index(int(bad.argmax()), bad.shape))
    found = f"{what}: {count} of {array.size} samples are NaN or Inf, the first at {place}"
    if nonfinite == "error":
        raise NumericalError(f"{path}: {found}; use --nonfinite zero to replace them by 0")
    return np.where(bad, 0, array).astype(array.dtype), (f"{found}; replaced by 0",)
