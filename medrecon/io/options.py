"""What the user may add where a file does not say enough."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medrecon.errors import UsageError

_LARGEST_IMAGE = 16384


@dataclass(frozen=True)
class ReadOptions:
    """Options of :func:`medrecon.io.read_scan`, one to one with those of the command line.

    Parameters
    ----------
    key
        Dataset or variable that holds the measurements, where several could (``--key``).
    axes
        Names of the array's axes, comma separated, e.g. ``coil,y,x`` (``--axes``); y is the read-out
        or first phase encoding, x the last; also ``slice``, ``z``, ``set``, ``average``. ``_`` marks an
        axis of length 1.
    mask
        File with the sampling mask (``--mask``).
    maps
        File with coil sensitivity maps (``--maps``).
    calibration
        File with separately acquired, fully sampled calibration k-space (``--calibration``).
    repetitions
        What to do with repeated lines or volumes: average them or keep the first.
    nonfinite
        ``error`` stops at the first NaN or Inf; ``zero`` replaces such samples and says so.
    half_fov_shift
        Move the image by half the field of view (``--half-fov-shift``).
    center
        CT: detector column of the rotation axis, counted from 0; "auto" estimates it, None takes what the
        file says and estimates where it says nothing (``--center``).
    suppress_rings
        CT: remove stripes of single detector bins (``--suppress-rings``).
    pixel_size
        CT: detector pitch at the rotation axis, and pixel of the image, in mm where the file does not say
        (``--pixel-size``).
    image_size
        CT: rows and columns of the image, over the same extent (``--image-size``).
    mu_water
        CT: attenuation of water in 1/mm; images become Hounsfield units (``--mu-water``).
    max_bytes
        Largest declared size in bytes that may be read; None takes half of the free memory.
    """

    key: str | None = None
    axes: str | None = None
    mask: Path | None = None
    maps: Path | None = None
    calibration: Path | None = None
    repetitions: Literal["average", "first"] = "average"
    nonfinite: Literal["error", "zero"] = "error"
    half_fov_shift: bool = False
    center: float | Literal["auto"] | None = None
    suppress_rings: bool = False
    pixel_size: float | None = None
    image_size: int | None = None
    mu_water: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("--pixel-size", self.pixel_size), ("--mu-water", self.mu_water)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} {value:g}: expected a positive number")
        if self.image_size is not None and not 1 <= self.image_size <= _LARGEST_IMAGE:
            raise UsageError(f"--image-size {self.image_size}: expected 1 to {_LARGEST_IMAGE}")
