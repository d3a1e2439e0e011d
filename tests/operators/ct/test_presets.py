"""CT acquisitions from a few numbers."""

import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators import FanBeam2D, ParallelBeam2D
from medrecon.operators.ct.presets import check_preset, fan_preset, parallel_preset


def test_parallel_covers_the_diagonal():
    operator = parallel_preset({"views": 8, "start": 10, "span": 90}, (30, 40), 0.7)
    assert isinstance(operator, ParallelBeam2D)
    assert operator.detector_count * operator.detector_pitch >= 50 * 0.7
    assert torch.allclose(operator.angles[0], torch.deg2rad(10 + torch.arange(8) * 11.25).double(), atol=1e-6)


@pytest.mark.parametrize("kind", ["arc", "flat"])
def test_fan_sees_the_whole_image(kind):
    operator = fan_preset({"views": 12, "detector_shape": kind}, (64, 80), 0.9)
    assert isinstance(operator, FanBeam2D)
    corner = torch.zeros(1, 1, 64, 80)
    corner[..., 0, 0] = 1
    assert bool((operator(corner).sum(3) > 0).all())
    assert operator.detector_pitch * operator.source_origin / operator.source_detector == pytest.approx(0.9)
    assert float(operator.angles[0, -1]) == pytest.approx(2 * math.pi * 11 / 12)


def test_image_larger_than_the_gantry():
    with pytest.raises(UsageError, match="beyond the source"):
        fan_preset({"views": 12}, (512, 512), 5.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "views must be at least 1"),
        ({"views": 0}, "views must be at least 1"),
        ({"views": 3, "span": 0}, "span must be positive"),
        ({"views": 3, "span": 400}, "at most 360"),
        ({"views": 3, "source_origin": -1}, "source_origin must be positive"),
        ({"views": 3, "detector_shape": "round"}, "arc or flat"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(UsageError, match=message):
        check_preset("recipe 'x'", parameters)
