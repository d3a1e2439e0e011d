"""Configurations of the Invertible Diffusion Model by name."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from medrecon.errors import UsageError

# For training from scratch, each found better at equal time on one CPU core: no pixel shuffle at the border;
# gated blocks that normalise single pixels; v = 0.1, for at 1/2 half of every state, and of x̂, is an older
# one; a noise level that falls from step to step instead of α = 1/2 everywhere.
_FROM_SCRATCH: dict[str, Any] = {
    "stem": 1,
    "block": "gated",
    "mix": 0.1,
    "data_consistency": "learned",
    "intensity": None,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "sd15": {},
    "base": {**_FROM_SCRATCH, "widths": [48, 96, 192], "heads": [0, 0, 6], "groups": 8},
    "small": {**_FROM_SCRATCH, "widths": [24, 48], "heads": [0, 0], "groups": 4, "layers": 1},
    "tiny": {**_FROM_SCRATCH, "widths": [8, 16], "heads": [0, 2], "groups": 4, "layers": 1},
}
NOISE_LEVELS = (0.14, 2.0)
"""√(1-ᾱ)/√ᾱ at t = 1 and t = T of the presets for training from scratch."""


def preset(name: str, *, image_channels: int = 1, steps: int = 3) -> dict[str, Any]:
    """Return the configuration of that name.

    ==========  ============  ================================================================
    name        parameters    for
    ==========  ============  ================================================================
    ``sd15``    115.3 M       published weights, or a start from Stable Diffusion 1.5
    ``base``    5.7 M         a GPU
    ``small``   0.1 M         a CPU
    ``tiny``    0.03 M        tests
    ==========  ============  ================================================================

    All but ``sd15`` work at full resolution and have attention at the coarsest level only, ``small`` none.

    Parameters
    ----------
    name
        See the table.
    image_channels
        1, 2 or 3.
    steps
        T.
    """
    config = {**named_preset(name, _PRESETS), "image_channels": image_channels, "steps": steps}
    if name != "sd15":
        config["alphas"] = falling_noise(steps)
    return config


def named_preset(name: str, presets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the preset of that name; UsageError names those that there are."""
    if name not in presets:
        close = get_close_matches(name, presets, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"no preset is called {name!r}, there are {', '.join(presets)}{hint}")
    return presets[name]


def falling_noise(steps: int) -> list[float]:
    """Return α_1 … α_T for noise levels √(1-ᾱ_t)/√ᾱ_t in geometric progression, see :data:`NOISE_LEVELS`."""
    first, last = NOISE_LEVELS
    ratio = (last / first) ** (1 / max(steps - 1, 1))
    bars = [1.0, *(1 / (1 + (first * ratio**t) ** 2) for t in range(steps))]
    return [math.prod([after, 1 / before]) for before, after in pairwise(bars)]
