"""Random receive arrays: coil sensitivities of loops on a ring, by Biot-Savart in closed form."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ellipe, ellipk
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers import checks
from medrecon.operators.samplers.base import cpu_generator, plane


@dataclass(frozen=True)
class CoilArray:
    r"""A distribution of coil arrays around the field of view.

    Circular loops stand on a ring in the image plane, their axes towards its centre. By reciprocity
    a loop receives with :math:`s = B_x - i B_y` of the field that unit current in it would make; the
    field of a circular loop is a closed form in complete elliptic integrals. The maps are then
    divided by :math:`\sqrt{\sum_c |s_c|^2}`, so they are smooth and their squares sum to 1.

    Parameters
    ----------
    count
        Number of coils.
    distance
        Radius of the ring; 1 is half the field of view, so beyond 1.42 no loop meets a corner.
    variation
        Relative spread of angle, distance, size and gain from coil to coil; 0 leaves only the angle
        of the whole array and the constant phase of each coil random.
    """

    count: int = 8
    distance: float = 1.6
    variation: float = 0.1

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= 256:
            raise UsageError(f"{owner}: count must be a whole number of coils from 1 to 256, got {self.count!r}")
        checks.real(owner, "distance", self.distance, 1.42, 10)
        checks.real(owner, "variation", self.variation, 0, 0.5)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw sensitivity maps, complex64 ``(count, H, W)``."""
        height, width = plane(shape)
        random = torch.rand((6, self.count), dtype=torch.float64, generator=cpu_generator(generator)).numpy()
        spread = self.variation * (2 * random - 1)
        spacing = 2 * np.pi / self.count
        angle = spacing * (np.arange(self.count) + random[0, 0] + spread[1])
        # from outside the corners a coil may move away, never in
        distance = self.distance * (1 + np.abs(spread[2]))
        size = np.clip(1.1 * self.distance * np.sin(min(spacing, np.pi) / 2), 0.4, 0.9) * (1 + spread[3])
        gain = (1 + spread[4]) * np.exp(2j * np.pi * random[5])
        y = ((np.arange(height) - height // 2) / max(height / 2, 1))[:, None]
        x = ((np.arange(width) - width // 2) / max(width / 2, 1))[None, :]
        maps = np.stack(
            [
                gain[coil] * _loop_sensitivity(x, y, angle[coil], distance[coil], size[coil])
                for coil in range(self.count)
            ]
        )
        maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
        return torch.from_numpy(maps.astype(np.complex64))


def _loop_sensitivity(
    x: NDArray[np.float64], y: NDArray[np.float64], angle: float, distance: float, size: float
) -> NDArray[np.complex128]:
    r"""Return :math:`B_x - i B_y` of a circular loop of radius ``size`` that faces the origin.

    With z along its axis, r across and :math:`a` its radius, :math:`\beta^2 = (a + r)^2 + z^2`,
    :math:`\alpha^2 = (a - r)^2 + z^2`, :math:`m = 1 - \alpha^2/\beta^2`, and up to a constant:

    .. math::
        B_z = \frac{(a^2 - r^2 - z^2) E(m) + \alpha^2 K(m)}{\alpha^2 \beta}, \quad
        B_r = \frac{z}{r}\,\frac{(a^2 + r^2 + z^2) E(m) - \alpha^2 K(m)}{\alpha^2 \beta}.
    """
    towards = -np.exp(1j * angle)  # unit vector from the loop to the origin, x + iy
    # coordinates of every point in the frame (axis, tangent) of the loop
    local = (x + 1j * y + distance * towards) * np.conj(towards)
    along, across = local.real, local.imag
    radius = np.maximum(np.abs(across), 1e-3 * size)  # B_r / r has a limit on the axis; stay off 0/0
    square = radius**2 + along**2
    alpha2 = size**2 + square - 2 * size * radius
    beta2 = size**2 + square + 2 * size * radius
    first, second = ellipk(1 - alpha2 / beta2), ellipe(1 - alpha2 / beta2)
    axial = ((size**2 - square) * second + alpha2 * first) / (alpha2 * np.sqrt(beta2))
    radial = along / radius * ((size**2 + square) * second - alpha2 * first) / (alpha2 * np.sqrt(beta2))
    field = (axial + 1j * radial * (across / radius)) * towards  # B_x + i B_y in the laboratory frame
    return np.asarray(np.conj(field), dtype=np.complex128)
