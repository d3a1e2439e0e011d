"""Coil sensitivities from the calibration region of a k-space: ESPIRiT, and two cheaper estimates."""

from medrecon.operators.coils.calibration import LEAST_CALIBRATION, CalibrationRegion, find_calibration_region
from medrecon.operators.coils.espirit import espirit
from medrecon.operators.coils.espirit_result import EspiritResult
from medrecon.operators.coils.estimate import MapMethod, estimate_maps
from medrecon.operators.coils.low_resolution import low_resolution_maps
from medrecon.operators.coils.walsh import walsh

__all__ = [
    "LEAST_CALIBRATION",
    "CalibrationRegion",
    "EspiritResult",
    "MapMethod",
    "espirit",
    "estimate_maps",
    "find_calibration_region",
    "low_resolution_maps",
    "walsh",
]
