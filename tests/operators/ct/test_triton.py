"""The CUDA kernels: in Triton's interpreter against the oracles everywhere, on the device where there is one."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from medrecon.operators import FanBeam2D, ParallelBeam2D
from medrecon.operators.ct import fan_torch, parallel_torch

PARALLEL = """
import math, torch
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct import parallel_torch, triton_parallel
triton_parallel._BINS = triton_parallel._PIXELS = 16
angles = torch.tensor([0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, -0.3, 2.0, 7.0])
generator = torch.Generator().manual_seed(0)
for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
    for height, width, pitch, count, number in ((9, 7, 1.0, 19, 1), (7, 10, 0.5, 30, 5), (8, 8, 2.3, 6, 3)):
        views = ParallelBeam2D((height, width), angles, detector_count=count, detector_pitch=pitch).views[0]
        x = torch.randn(number, height, width, dtype=dtype, generator=generator)
        y = torch.randn(number, len(angles), count, dtype=dtype, generator=generator)
        forward = triton_parallel.project(x, views, pitch, count)
        back = triton_parallel.backproject(y, views, pitch, height, width)
        assert torch.allclose(forward, parallel_torch.project(x, views, pitch, count), atol=tolerance)
        assert torch.allclose(back, parallel_torch.backproject(y, views, pitch, height, width), atol=tolerance)
"""

FAN = """
import math, torch
from medrecon.operators import FanBeam2D
from medrecon.operators.ct import fan_torch, triton_fan
triton_fan._BINS = triton_fan._PIXELS = 16
angles = torch.arange(5) * 2 * math.pi / 5 + 0.1
generator = torch.Generator().manual_seed(0)
for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
    for height, width, pitch, count, shape in ((9, 7, 1.1, 23, "flat"), (7, 6, 0.7, 33, "arc"), (8, 8, 3.0, 9, "flat")):
        operator = FanBeam2D(
            (height, width), angles, source_origin=20, source_detector=30, detector_count=count, detector_pitch=pitch,
            detector_shape=shape, center_of_rotation=0.3,
        )
        geometry = operator.sources[0], operator.directions[0]
        x = torch.randn(2, height, width, dtype=dtype, generator=generator)
        y = torch.randn(2, len(angles), count, dtype=dtype, generator=generator)
        forward, back = triton_fan.project(x, *geometry), triton_fan.backproject(y, *geometry, height, width)
        assert torch.allclose(forward, fan_torch.project(x, *geometry), atol=tolerance)
        assert torch.allclose(back, fan_torch.backproject(y, *geometry, height, width), atol=tolerance)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed (pip install triton)")
@pytest.mark.parametrize("code", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_interpreted(code):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 9])
def test_parallel_on_the_device(batch):
    from medrecon.operators.ct import triton_parallel

    views = ParallelBeam2D((100, 130), torch.arange(60) * torch.pi / 60, detector_count=140).views[0].cuda()
    x, y = torch.randn(batch, 100, 130).cuda(), torch.randn(batch, 60, 140).cuda()
    forward, back = triton_parallel.project(x, views, 1.0, 140), triton_parallel.backproject(y, views, 1.0, 100, 130)
    assert torch.allclose(forward, parallel_torch.project(x, views, 1.0, 140), atol=1e-3)
    assert torch.allclose(back, parallel_torch.backproject(y, views, 1.0, 100, 130), atol=1e-3)
    assert torch.equal(back, triton_parallel.backproject(y, views, 1.0, 100, 130))  # nothing is atomic


@pytest.mark.gpu
def test_fan_on_the_device():
    from medrecon.operators.ct import triton_fan

    operator = FanBeam2D(
        (100, 130),
        torch.arange(60) * torch.pi / 30,
        source_origin=260,
        source_detector=520,
        detector_count=200,
        detector_pitch=2,
    ).cuda()
    geometry = operator.sources[0], operator.directions[0]
    x, y = torch.randn(3, 100, 130).cuda(), torch.randn(3, 60, 200).cuda()
    assert torch.allclose(triton_fan.project(x, *geometry), fan_torch.project(x, *geometry), atol=2e-3)
    expected = fan_torch.backproject(y, *geometry, 100, 130)
    assert torch.allclose(triton_fan.backproject(y, *geometry, 100, 130), expected, atol=2e-3)
