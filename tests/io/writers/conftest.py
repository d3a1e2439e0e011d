import math

import numpy as np
import pytest

from medrecon.io.geometry import Geometry
from medrecon.io.image import Image


def _oblique() -> Geometry:
    turn, tilt = 0.3, -0.2
    about_z = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1.2, -0.9, 3.0])
    affine[:3, 3] = [101.25, -20.5, 100 / 3]
    return Geometry(affine)


@pytest.fixture
def oblique() -> Geometry:
    return _oblique()


@pytest.fixture
def phantom() -> np.ndarray:
    """Three slices, 24 rows, 20 columns, nothing symmetric, values of fastMRI's size."""
    z, y, x = np.mgrid[:3, :24, :20]
    disc = ((y - 11) ** 2 / 100 + (x - 9) ** 2 / 60 < 1) * (1.0 + 0.1 * z)
    spot = ((y - 6) ** 2 + (x - 13) ** 2 < 6) * 0.8
    return ((disc + spot + 0.01 * x) * 1e-4).astype(np.float32)


@pytest.fixture
def mr(phantom) -> Image:
    return Image(
        phantom,
        _oblique(),
        "MR",
        {"method": "l1-wavelet", "residual": 0.031, "iterations": 50},
        {"repetition_time": 2000.0, "echo_time": 30.123456789012345, "flip_angle": 90, "field_strength": 3.0},
    )


@pytest.fixture
def ct(phantom) -> Image:
    return Image(np.rint(phantom * 1e4 * 1200 - 1000).astype(np.float32), _oblique(), "CT", {"method": "fbp"})
