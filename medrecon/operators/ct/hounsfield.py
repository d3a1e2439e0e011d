"""Attenuation and Hounsfield units."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError

MU_WATER = 0.02
"""Attenuation of water in 1/mm near 60 keV, as in the LoDoPaB-CT data set (Leuschner et al., Sci. Data 8:109, 2021)."""

Values = TypeVar("Values", Tensor, NDArray[np.floating])


def to_hounsfield(mu: Values, *, mu_water: float = MU_WATER, mu_air: float = 0.0) -> Values:
    """Return HU = 1000 (μ - μ_water) / (μ_water - μ_air) of attenuation in the unit of ``mu_water``.

    Examples
    --------
    >>> import torch
    >>> to_hounsfield(torch.tensor([0.0, 0.02, 0.04]))
    tensor([-1000.,     0.,  1000.])
    """
    scale = _scale(mu_water, mu_air)
    return (mu - mu_water) * (1000 / scale)


def from_hounsfield(hu: Values, *, mu_water: float = MU_WATER, mu_air: float = 0.0) -> Values:
    """Return the attenuation of CT numbers, at least 0.

    Numbers below that of vacuum are no matter but padding outside the field of view (-2000 and the
    like); they become 0.
    """
    scale = _scale(mu_water, mu_air)
    mu = hu * (scale / 1000) + mu_water
    return mu.clamp_min(0) if isinstance(mu, Tensor) else np.maximum(mu, 0)


def _scale(mu_water: float, mu_air: float) -> float:
    if not (math.isfinite(mu_water) and math.isfinite(mu_air) and 0 <= mu_air < mu_water):
        raise UsageError(
            f"Hounsfield units need 0 <= mu_air < mu_water in 1/mm, got {mu_air} and {mu_water} (--mu-water)"
        )
    return mu_water - mu_air
