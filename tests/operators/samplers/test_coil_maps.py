"""Simulated coil arrays against numerical Biot-Savart, and their normalisation."""

import numpy as np
import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators.samplers import CoilArray
from medrecon.operators.samplers.coil_maps import _loop_sensitivity


@pytest.mark.parametrize("count", [1, 2, 8, 20])
@pytest.mark.parametrize("shape", [(64, 48), (33, 51)])
def test_squares_sum_to_one_and_maps_are_smooth(count, shape):
    maps = CoilArray(count).draw(shape, torch.Generator().manual_seed(0))
    assert maps.shape == (count, *shape)
    assert maps.dtype == torch.complex64
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(shape), atol=1e-6)
    for axis in (1, 2):
        half = shape[axis - 1] / 2  # derivatives in units of half the field of view, where loops have radius >= 0.36
        assert maps.diff(dim=axis).abs().max() * half < 4
        assert maps.diff(n=2, dim=axis).abs().max() * half**2 < 20


def test_coils_differ_so_that_they_encode():
    maps = CoilArray(8).draw((32, 32), torch.Generator().manual_seed(0)).flatten(1)
    singular = torch.linalg.svdvals(maps)
    assert singular[-1] > 0.02 * singular[0]


def test_seed_reproduces_and_varies():
    first, second, third = (CoilArray(4).draw((16, 16), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, third, atol=1e-2)


def test_same_array_on_a_finer_grid():
    coarse = CoilArray(4).draw((32, 32), torch.Generator().manual_seed(0))
    fine = CoilArray(4).draw((64, 64), torch.Generator().manual_seed(0))
    assert torch.allclose(fine[:, ::2, ::2], coarse, atol=1e-6)


def test_closed_form_equals_biot_savart():
    angle, distance, size = 0.7, 1.6, 0.5
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 20))
    out = np.array([np.cos(angle), np.sin(angle), 0])
    tangent, up = np.array([-np.sin(angle), np.cos(angle), 0]), np.array([0, 0, 1.0])
    phi = 2 * np.pi * np.arange(4000)[:, None] / 4000
    wire = distance * out + size * (np.cos(phi) * tangent + np.sin(phi) * up)
    # the current runs so that the field points to the origin
    element = -size * (-np.sin(phi) * tangent + np.cos(phi) * up) * 2 * np.pi / 4000
    offset = np.stack([x, y, np.zeros_like(x)], 1)[:, None] - wire
    field = (np.cross(element, offset) / np.linalg.norm(offset, axis=2, keepdims=True) ** 3).sum(1)
    reference = field[:, 0] - 1j * field[:, 1]
    found = _loop_sensitivity(x, y, angle, distance, size)
    factor = np.vdot(found, reference) / np.vdot(found, found)
    assert abs(factor.imag) < 1e-6 * factor.real
    assert np.abs(factor * found - reference).max() < 1e-5 * np.abs(reference).max()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"count": 0}, "count"),
        ({"count": 2.0}, "count"),
        ({"distance": 1}, "distance"),
        ({"variation": "a"}, "variation"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(UsageError, match=f"CoilArray: {message} must be"):
        CoilArray(**parameters)
