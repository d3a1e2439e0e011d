"""The range of values to display."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLES = 2_000_000


def robust_window(array: NDArray[Any], low: float = 0.005, high: float = 0.998) -> tuple[float, float]:
    """Return the (black, white) values that show a real image well: quantiles, so that one hot pixel changes nothing.

    An image without negative values is black at zero. White is always above black.
    """
    values = array.reshape(-1)
    values = values[:: max(1, values.size // _SAMPLES)]
    black, white = (float(value) for value in np.quantile(values, (low, high)))
    if values.min() >= 0:
        black = 0.0
    if white <= black:  # (nearly) constant: fall back on the extremes
        white = float(array.max())
    return black, white if white > black else black + 1.0
