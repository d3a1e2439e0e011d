"""The CUDA kernels for parallel beams: in Triton's interpreter against the oracle, on the device where there is one."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct import parallel_torch, triton_lines, triton_parallel, triton_runtime

ANGLES = [0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, -0.3, 2.0, 6.107]
CASES = {  # height, width, pitch, bins, detector offset, images
    "one": (9, 7, 1.0, 13, 0.0, 1),
    "fine bins, odd rest of a group": (7, 10, 0.5, 31, 0.2, 5),
    "wide bins": (8, 8, 2.3, 6, 0.2, 3),
    "bins of two pixels": (9, 7, 2.0, 9, 0.0, 2),
    "a single line": (1, 5, 0.31, 21, -0.4, 2),
    "detector far away": (6, 5, 1.0, 8, 400000.0, 1),
    "one bin, offset": (6, 5, 1.0, 1, 1.3, 3),
    "few rays that leave early": (80, 8, 0.3, 2, 0.1, 1),  # the last view has a program of its own
}
# positions of single precision would leave 1e-5 and more
TOLERANCE = {"float32": 5e-7, "float64": 2e-11}

PROGRAM = """
import json, sys
import torch
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct import parallel_torch, triton_parallel

torch.set_num_threads(1)
assert triton_parallel.available()
cases, angles = json.loads(sys.argv[1])
generator, found = torch.Generator().manual_seed(0), {}
for name, (height, width, pitch, count, offset, number) in cases.items():
    for dtype in (torch.float32, torch.float64):
        operator = ParallelBeam2D(
            (height, width), torch.tensor(angles), detector_count=count, detector_pitch=pitch, detector_offset=offset
        )
        views = operator.views[0]
        x = torch.randn(number, height, width, dtype=dtype, generator=generator)
        y = torch.randn(number, len(angles), count, dtype=dtype, generator=generator)
        forward = triton_parallel.project(x, views, pitch, count)
        back = triton_parallel.backproject(y, views, pitch, height, width)
        assert (forward.dtype, back.dtype) == (dtype, dtype)
        truth = parallel_torch.project(x.double(), views, pitch, count)
        back_truth = parallel_torch.backproject(y.double(), views, pitch, height, width)
        scale = max(float(truth.norm()), 1e-30), max(float(back_truth.norm()), 1e-30)
        gap = (forward.double() * y).sum() - (x.double() * back).sum()
        found[f"{name}, {str(dtype)[6:]}"] = [
            float((forward - truth).norm()) / scale[0],
            float((back - back_truth).norm()) / scale[1],
            abs(float(gap)) / (scale[0] * float(y.norm())),
            scale[0],
        ]
wide = ParallelBeam2D((5, 1024), torch.tensor([0.4]), detector_count=1000, detector_pitch=1.0).views[0]
x, y = torch.randn(1, 5, 1024, generator=generator), torch.randn(1, 1, 1000, generator=generator)
truth = parallel_torch.project(x.double(), wide, 1.0, 1000)
back_truth = parallel_torch.backproject(y.double(), wide, 1.0, 5, 1024)
found["wide"] = [
    float((triton_parallel.project(x, wide, 1.0, 1000) - truth).norm() / truth.norm()),
    float((triton_parallel.backproject(y, wide, 1.0, 5, 1024) - back_truth).norm() / back_truth.norm()),
]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def interpreted():
    """Errors of all cases from one process whose kernels are interpreted."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs the package triton, whose interpreter runs CUDA kernels on the CPU")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps([CASES, ANGLES])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_interpreter_is_the_oracle(interpreted, name, dtype):
    forward, back, dot, size = interpreted[f"{name}, {dtype}"]
    assert forward < TOLERANCE[dtype]
    assert back < TOLERANCE[dtype]
    assert dot < TOLERANCE[dtype]
    assert (size > 0.1) == (name != "detector far away")  # there was something to compare


def test_wide_images_lose_no_digits(interpreted):
    assert max(interpreted["wide"]) < 5e-7


def test_importable_without_triton():
    """Modules are looked through (doctests, documentation) on machines that have no Triton."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from medrecon.operators.ct import triton_fan, triton_lines, triton_parallel\n"
        "assert not triton_parallel.available()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_triton_says_what_to_do(monkeypatch):
    monkeypatch.setattr(triton_runtime, "triton", None)
    with pytest.raises(OperatorError, match="pip install triton"):
        triton_parallel.project(torch.ones(1, 4, 4), torch.tensor([[1.0, 0.0, 0.0]]).double(), 1.0, 4)


def test_refuses_tensors_elsewhere(monkeypatch):
    monkeypatch.setattr(triton_runtime, "triton", object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(OperatorError, match="on a CUDA device, got cpu"):
        triton_parallel.backproject(torch.ones(1, 1, 4), torch.tensor([[1.0, 0.0, 0.0]]).double(), 1.0, 4, 4)


def test_refuses_what_it_cannot_count():
    with pytest.raises(OperatorError, match="use fewer and wider bins"):
        triton_parallel.backproject(torch.ones(1, 1, 4), torch.tensor([[1.0, 0.0, 0.0]]).double(), 1e-5, 400, 400)
    with pytest.raises(OperatorError, match="at least one; got 0 of"):
        triton_parallel.project(torch.ones(0, 4, 4), torch.tensor([[1.0, 0.0, 0.0]]).double(), 1.0, 4)
    with pytest.raises(OperatorError, match="at most 65536 pixels a side, got 1 x 70000"):
        triton_parallel.project(torch.ones(1, 1, 70000), torch.tensor([[1.0, 0.0, 0.0]]).double(), 1.0, 4)


@pytest.mark.parametrize(
    ("number", "plane", "together"), [(1, 9, 1), (2, 9, 2), (3, 9, 4), (32, 9, 4), (8, 2**30, 1), (8, 2**29, 2)]
)
def test_images_together(number, plane, together):
    assert triton_runtime.images_together(number, plane) == together


def test_lines_hold_rows_and_columns():
    image = torch.arange(30.0).view(5, 2, 3)
    lines = triton_lines.lines_of(image, 4)
    assert lines.shape == (2, 2 * 7 + 3 * 6, 4)
    rows, columns = lines[:, :14].view(2, 2, 7, 4), lines[:, 14:].view(2, 3, 6, 4)
    for n in range(5):
        assert torch.equal(rows[n // 4, :, 2:-2, n % 4], image[n])
        assert torch.equal(columns[n // 4, :, 2:-2, n % 4], image[n].T)
    assert float(lines.sum()) == 2 * float(image.sum())  # all else is zero


@pytest.mark.gpu
@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pitch", [0.6, 1.0, 2.5])
def test_device_is_the_oracle(number, dtype, pitch):
    count, angles = math.ceil(170 / pitch), torch.arange(61) * torch.pi / 61
    views = ParallelBeam2D((100, 131), angles, detector_count=count, detector_pitch=pitch).views[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, 100, 131, dtype=dtype, generator=generator)
    y = torch.randn(number, 61, count, dtype=dtype, generator=generator)
    given = x.cuda(), y.cuda(), views.cuda()
    forward = triton_parallel.project(given[0], given[2], pitch, count)
    back = triton_parallel.backproject(given[1], given[2], pitch, 100, 131)
    truth = parallel_torch.project(x.double(), views, pitch, count)
    back_truth = parallel_torch.backproject(y.double(), views, pitch, 100, 131)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-11
    assert float((forward.cpu() - truth).norm() / truth.norm()) < tolerance
    assert float((back.cpu() - back_truth).norm() / back_truth.norm()) < tolerance
    gap = (forward.double() * given[1]).sum() - (given[0].double() * back).sum()
    assert abs(float(gap)) / float(forward.double().norm() * y.double().norm()) < 1e-6
    assert torch.equal(back, triton_parallel.backproject(given[1], given[2], pitch, 100, 131))  # nothing is atomic
