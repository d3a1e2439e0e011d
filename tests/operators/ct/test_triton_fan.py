"""The CUDA kernels for fans: in Triton's interpreter against the oracle, on the device where there is one."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import pytest
import torch

from medrecon.operators import FanBeam2D
from medrecon.operators.ct import fan_torch, triton_fan

ANGLES = [math.pi / 4, math.pi / 2, -0.3]
CASES = {  # height, width, source to axis and to detector, bins, pitch, detector, images, bins reversed
    "flat": (9, 7, 14, 28, 25, 1.0, "flat", 1, False),
    "flat, source near, odd rest of a group": (7, 10, 7, 30, 17, 4.1, "flat", 5, False),
    "arc, fine bins": (8, 8, 20, 40, 31, 0.6, "arc", 3, False),
    "a single line": (1, 5, 12, 30, 21, 0.9, "arc", 2, False),
    "one bin": (6, 6, 100, 200, 1, 2.0, "flat", 1, False),
    "reversed": (11, 12, 9, 18, 21, 1.9, "arc", 1, True),
    "wide open flat": (5, 6, 5, 10, 15, 4.0, "flat", 1, False),
    "wide open arc": (6, 5, 5, 10, 14, 2.0, "arc", 1, False),
}
DOUBLE = ["flat", "arc, fine bins", "reversed"]  # in double precision too; the interpreter takes its time
TOLERANCE = {"float32": 5e-7, "float64": 2e-11}

PROGRAM = """
import json, sys
import torch
from medrecon.operators import FanBeam2D
from medrecon.operators.ct import fan_torch, triton_fan

torch.set_num_threads(1)
cases, angles, double = json.loads(sys.argv[1])
generator, found = torch.Generator().manual_seed(0), {}
for name, (height, width, orbit, distance, count, pitch, shape, number, reverse) in cases.items():
    operator = FanBeam2D(
        (height, width), torch.tensor(angles), source_origin=orbit, source_detector=distance, detector_count=count,
        detector_pitch=pitch, detector_shape=shape, detector_offset=0.2, center_of_rotation=0.1,
    )
    sources, directions = operator.sources[0], operator.directions[0]
    geometry = sources, directions.flip(1) if reverse else directions
    for dtype in (torch.float32, torch.float64) if name in double else (torch.float32,):
        x = torch.randn(number, height, width, dtype=dtype, generator=generator)
        y = torch.randn(number, len(angles), count, dtype=dtype, generator=generator)
        forward = triton_fan.project(x, *geometry)
        back = triton_fan.backproject(y, *geometry, height, width)
        assert (forward.dtype, back.dtype) == (dtype, dtype)
        truth = fan_torch.project(x.double(), *geometry)
        back_truth = fan_torch.backproject(y.double(), *geometry, height, width)
        gap = (forward.double() * y).sum() - (x.double() * back).sum()
        found[f"{name}, {str(dtype)[6:]}"] = [
            float((forward - truth).norm() / truth.norm()),
            float((back - back_truth).norm() / back_truth.norm()),
            abs(float(gap)) / float(truth.norm() * y.norm()),
        ]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def interpreted():
    """Errors of all cases from one process whose kernels are interpreted."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the package triton, whose interpreter runs CUDA kernels on the CPU")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps([CASES, ANGLES, DOUBLE])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in CASES), *((name, "float64") for name in DOUBLE)]
)
def test_interpreter_is_the_oracle(interpreted, name, dtype):
    assert max(interpreted[f"{name}, {dtype}"]) < TOLERANCE[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("shape", ["flat", "arc"])
@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_device_is_the_oracle(shape, number, dtype):
    operator = FanBeam2D(
        (100, 131),
        torch.arange(60) * torch.pi / 30,
        source_origin=230,
        source_detector=460,
        detector_count=301,
        detector_pitch=1.1,
        detector_shape=shape,
    )
    geometry = operator.sources[0], operator.directions[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, 100, 131, dtype=dtype, generator=generator)
    y = torch.randn(number, 60, 301, dtype=dtype, generator=generator)
    there = [part.cuda() for part in geometry]
    forward = triton_fan.project(x.cuda(), *there)
    back = triton_fan.backproject(y.cuda(), *there, 100, 131)
    truth, back_truth = fan_torch.project(x.double(), *geometry), fan_torch.backproject(y.double(), *geometry, 100, 131)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-11
    assert float((forward.cpu() - truth).norm() / truth.norm()) < tolerance
    assert float((back.cpu() - back_truth).norm() / back_truth.norm()) < tolerance
    gap = (forward.cpu().double() * y).sum() - (x.double() * back.cpu()).sum()
    assert abs(float(gap)) / float(truth.norm() * y.double().norm()) < 1e-6
    assert torch.equal(back, triton_fan.backproject(y.cuda(), *there, 100, 131))  # nothing is atomic
