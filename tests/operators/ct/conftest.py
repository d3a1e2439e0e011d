"""Phantoms whose line integrals are known."""

import math

import pytest
import torch

ELLIPSES = (  # value, half axes, centre, angle; all in units of half the field of view
    (1.0, 0.80, 0.62, 0.02, -0.03, 0.3),
    (-0.5, 0.60, 0.45, 0.00, 0.05, 0.4),
    (0.4, 0.12, 0.20, 0.25, 0.10, -0.4),
    (0.6, 0.06, 0.05, -0.30, -0.25, 0.0),
)


class Phantom:
    """Ellipses over a field of view of 2 · ``half`` mm."""

    def __init__(self, half):
        self.half = half

    def image(self, size, oversampling=8):
        """Averages over the pixels of a size x size grid, Y upwards."""
        fine = (torch.arange(size * oversampling, dtype=torch.float64) + 0.5) / (size * oversampling) * 2 - 1
        y, x = torch.meshgrid(-fine, fine, indexing="ij")
        image = torch.zeros_like(x)
        for value, a, b, x0, y0, angle in ELLIPSES:
            c, s = math.cos(angle), math.sin(angle)
            along, across = (x - x0) * c + (y - y0) * s, (y - y0) * c - (x - x0) * s
            image += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
        return image.unfold(0, oversampling, oversampling).unfold(1, oversampling, oversampling).mean((2, 3)).float()

    def integrals(self, normal, distance):
        """Integrals in mm along the lines X cos n + Y sin n = d (mm)."""
        total, distance = torch.zeros_like(distance * normal), distance / self.half
        for value, a, b, x0, y0, angle in ELLIPSES:
            d = distance - x0 * torch.cos(normal) - y0 * torch.sin(normal)
            width = (a * torch.cos(normal - angle)) ** 2 + (b * torch.sin(normal - angle)) ** 2
            total += value * 2 * a * b * (width - d**2).clamp_min(0).sqrt() / width
        return total * self.half


@pytest.fixture
def phantom():
    return Phantom
