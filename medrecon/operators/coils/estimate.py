"""Coil sensitivities by the name of the method."""

from typing import Literal

from torch import Tensor

from medrecon.operators.coils.espirit import espirit
from medrecon.operators.coils.low_resolution import low_resolution_maps
from medrecon.operators.coils.walsh import walsh

MapMethod = Literal["espirit", "walsh", "low-resolution"]


def estimate_maps(
    calibration: Tensor, image_shape: tuple[int, int], method: MapMethod, *, num_sets: Literal[1, 2, "auto"] = 1
) -> Tensor:
    """Estimate maps (sets, coils, H, W) from calibration k-space (coils, h, w).

    Parameters
    ----------
    calibration
        Fully sampled, around zero frequency.
    image_shape
        (H, W) of the maps.
    method
        "espirit", see :func:`espirit`; "walsh", see :func:`walsh`; or "low-resolution", see
        :func:`low_resolution_maps`.
    num_sets
        Of ESPIRiT; the others give one.
    """
    if method == "espirit":
        # small calibration regions get smaller kernels
        size = min(6, min(calibration.shape[1:]) // 2)
        return espirit(calibration, image_shape, kernel_size=size, num_sets=num_sets).maps
    return walsh(calibration, image_shape) if method == "walsh" else low_resolution_maps(calibration, image_shape)
