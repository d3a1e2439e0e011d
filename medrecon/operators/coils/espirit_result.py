"""What ESPIRiT returns."""

from typing import NamedTuple

from torch import Tensor


class EspiritResult(NamedTuple):
    """Coil sensitivities and the eigenvalues that vouch for them.

    Parameters
    ----------
    maps
        Complex sensitivities (sets, coils, H, W), unit length over the coils, zero where the eigenvalue is <= crop.
    eigenvalues
        Real eigenvalues (sets, H, W) in [0, 1], descending over the sets: 1 where a map explains the calibration data.
        Where the map is zero they are estimates from below.
    """

    maps: Tensor
    eigenvalues: Tensor
