"""A reconstructed (or reference) image volume with the geometry and history a writer needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medrecon.io.geometry import Geometry


@dataclass(frozen=True)
class Image:
    """A stack of slices.

    Parameters
    ----------
    array
        (slices, rows, columns), float32 magnitude (arbitrary units for MR, HU for CT) or complex64.
    geometry
        Of this very grid.
    modality
        DICOM modality: "MR", "CT" or "OT".
    provenance
        JSON-ready record of how the image came about (method, parameters, versions, residual, hash
        of the input); written to the sidecar and summarised in DICOM's DerivationDescription.
    header
        Allow-listed acquisition parameters, e.g. "repetition_time" (ms), "echo_time" (ms),
        "flip_angle" (degrees), "field_strength" (T).
    deviation
        Standard deviation of every pixel over the draws of a method that draws, in the units of ``array``.
    """

    array: NDArray[Any]
    geometry: Geometry
    modality: str = "MR"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    deviation: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"Image: expected an array (slices, rows, columns), got shape {self.array.shape}")
        if self.deviation is not None and self.deviation.shape != self.array.shape:
            raise ValueError(f"Image: the deviation has the shape {self.deviation.shape}, the array {self.array.shape}")

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Absolute value of a complex image; a real one as it is (CT numbers may be negative)."""
        array = np.abs(self.array) if np.iscomplexobj(self.array) else self.array
        return np.asarray(array, dtype=np.float32)
