import numpy as np
import pytest

from medrecon.io.writers.window import robust_window


def test_one_hot_pixel_does_not_darken_the_rest():
    image = np.linspace(0, 1, 10_000, dtype=np.float32)
    image[5000] = 1000
    black, white = robust_window(image)
    assert black == 0
    assert white == pytest.approx(0.998, abs=1e-3)


def test_negative_values_are_shown():
    black, white = robust_window(np.linspace(-1000, 2000, 10_001))
    assert black == pytest.approx(-985)
    assert white == pytest.approx(1994)


@pytest.mark.parametrize("value", [0.0, 3.0, -1000.0])
def test_a_constant_image_has_a_window(value):
    black, white = robust_window(np.full((2, 3, 4), value))
    assert white > black


def test_a_lone_bright_voxel_is_inside():
    image = np.zeros(10_000)
    image[7] = 5
    assert robust_window(image) == (0, 5)
