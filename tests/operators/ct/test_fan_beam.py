"""Fan beams against closed forms, a matrix built ray by ray, and the contract of operators."""

import math

import numpy as np
import pytest
import torch
from torch.library import opcheck

from medrecon.errors import OperatorError
from medrecon.operators import FanBeam2D
from medrecon.operators.ct import backends, fan_torch
from medrecon.operators.ct.fan_ops import fan_backprojection, fan_projection
from medrecon.testing import adjoint_error, assert_linear_operator

ANGLES = torch.arange(13) * 2 * math.pi / 13
FLAT = {"source_origin": 30.0, "source_detector": 50.0, "detector_count": 27, "detector_pitch": 1.3}
SHIFTED = {"pixel_size": 0.7, "detector_offset": 0.4, "center_of_rotation": 0.6, "image_center": (0.5, -0.8)}
GEOMETRIES = [
    {"image_shape": (9, 13), "angles": ANGLES, **FLAT},
    {"image_shape": (2, 8, 5), "angles": ANGLES, **FLAT, **SHIFTED, "detector_shape": "arc"},
    {"image_shape": (1, 7, 10), "angles": torch.stack([ANGLES, -ANGLES, 2 * ANGLES]), **FLAT, **SHIFTED},
    {"image_shape": (1, 1), "angles": ANGLES[:2], **FLAT},
]


@pytest.mark.parametrize("parameters", GEOMETRIES, ids=lambda p: f"{p['image_shape']}")
def test_contract(parameters):
    assert_linear_operator(FanBeam2D(**parameters))


@pytest.mark.parametrize("parameters", GEOMETRIES[:3], ids=lambda p: f"{p['image_shape']}")
def test_contract_without_numba(parameters, monkeypatch):
    monkeypatch.setattr(backends, "_present", lambda _: False)
    assert_linear_operator(FanBeam2D(**parameters))


def rays(shape, beta, offset=0.0, axis=0.0):
    """Sources and bins of the scanner of FLAT from its definition: (views, 2), (views, bins, 2) in mm."""
    orbit, distance, count, pitch = FLAT.values()
    u = (np.arange(count) - (count - 1) / 2) * pitch + offset
    sources, bins = [], []
    for b in beta:
        along, ahead = np.array([math.cos(b), math.sin(b)]), np.array([-math.sin(b), math.cos(b)])
        source = -orbit * ahead - axis * along
        if shape == "flat":
            place = source + distance * ahead + u[:, None] * along
        else:
            gamma = u[:, None] / distance
            place = source + distance * (np.sin(gamma) * along + np.cos(gamma) * ahead)
        sources.append(source)
        bins.append(place)
    return np.array(sources), np.array(bins)


def joseph(height, width, pixel, center, sources, bins):
    """The dense matrix (views · bins, H · W) of Joseph's definition, ray by ray."""
    rows = []
    for source, row in zip(sources, bins, strict=True):
        for place in row:
            s, d = (source - center) / pixel, place - source
            weights = np.zeros((height, width))
            if abs(d[1]) >= abs(d[0]):
                for i in range(height):
                    y = (height - 1) / 2 - i
                    spread(weights[i], s[0] + (y - s[1]) * d[0] / d[1] + (width - 1) / 2)
                weights *= math.hypot(1, d[0] / d[1])
            else:
                for j in range(width):
                    x = j - (width - 1) / 2
                    spread(weights[:, j], (height - 1) / 2 - (s[1] + (x - s[0]) * d[1] / d[0]))
                weights *= math.hypot(1, d[1] / d[0])
            rows.append(weights.reshape(-1) * pixel)
    return np.array(rows)


def spread(line, q):
    left = math.floor(q)
    for index, weight in ((left, left + 1 - q), (left + 1, q - left)):
        if 0 <= index < len(line):
            line[index] += weight


@pytest.mark.parametrize("shape", ["flat", "arc"])
@pytest.mark.parametrize("numba", [True, False])
def test_is_joseph(shape, numba, monkeypatch):
    if not numba:
        monkeypatch.setattr(backends, "_present", lambda _: False)
    operator = FanBeam2D((7, 10), ANGLES, **FLAT, **SHIFTED, detector_shape=shape)
    sources, bins = rays(shape, ANGLES.double().numpy(), SHIFTED["detector_offset"], SHIFTED["center_of_rotation"])
    dense = torch.from_numpy(joseph(7, 10, 0.7, np.array([0.5, -0.8]), sources, bins))
    x = torch.randn(2, 1, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(operator(x).flatten(1), x.flatten(1) @ dense.T, atol=1e-10)
    y = operator(x)
    assert torch.allclose(operator.adjoint(y).flatten(1), y.flatten(1) @ dense, atol=1e-9)


@pytest.mark.parametrize("shape", ["flat", "arc"])
def test_line_integrals_of_ellipses(phantom, shape):
    size, pixel = 96, 0.25
    true = phantom(size / 2 * pixel)
    beta = torch.arange(50, dtype=torch.float64) * 2 * math.pi / 50
    operator = FanBeam2D(
        (size, size),
        beta,
        source_origin=40.0,
        source_detector=70.0,
        detector_count=140,
        detector_pitch=0.4,
        detector_shape=shape,
        pixel_size=pixel,
    )
    u = (torch.arange(140, dtype=torch.float64) - 69.5) * 0.4
    gamma = u / 70 if shape == "arc" else torch.atan(u / 70)
    truth = true.integrals(beta[:, None] - gamma, 40 * torch.sin(gamma))
    gap = operator(true.image(size)[None, None])[0, 0] - truth
    assert float(gap.norm() / truth.norm()) < 0.02


@pytest.mark.parametrize("shape", ["flat", "arc"])
@pytest.mark.parametrize(("degrees", "views"), [(360, 400), (-360, 400), (243, 300), (-243, 300), (290, 330)])
@pytest.mark.parametrize("shifts", [(0.0, 0.0), (1.7, 3.0)])
def test_filtered_backprojection_returns_the_image(phantom, shape, degrees, views, shifts):
    """Full turns and Parker's short scans in both directions of rotation."""
    size, pixel = 96, 0.8
    true = phantom(size / 2 * pixel)
    image = true.image(size)[None, None] * 0.02
    operator = FanBeam2D(
        (size, size),
        torch.arange(views) * math.radians(degrees) / views + 0.3,
        source_origin=150,
        source_detector=280,
        detector_count=220,
        detector_pitch=1.2,
        detector_shape=shape,
        pixel_size=pixel,
        center_of_rotation=shifts[0],
        detector_offset=shifts[1],
    )
    result = operator.filtered_backprojection(operator(image))
    inside = (slice(44, 52), slice(30, 36))
    assert float(result[0, 0][inside].mean() / image[0, 0][inside].mean()) == pytest.approx(1, abs=0.01)
    assert float((result - image).norm() / image.norm()) < 0.1


def test_too_short_a_scan_is_told(phantom, caplog):
    operator = FanBeam2D((9, 9), torch.arange(40) * math.pi / 40, **FLAT)
    operator.filtered_backprojection(torch.ones(1, *operator.data_shape))
    assert "180 degrees" in caplog.text


def test_filtered_backprojection_is_linear_and_differentiable():
    operator = FanBeam2D((6, 7), ANGLES[:7], **FLAT)
    y = torch.randn(2, *operator.data_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator.filtered_backprojection, (y,))


@pytest.mark.parametrize("kind", ["flat", "arc"])
def test_pixel_driven_numba_equals_torch(kind, monkeypatch):
    operator = FanBeam2D((9, 13), ANGLES, **FLAT, **SHIFTED, detector_shape=kind)
    y = torch.randn(1, *operator.data_shape, dtype=torch.float64)
    compiled = operator.filtered_backprojection(y)
    monkeypatch.setattr(backends, "_present", lambda _: False)
    assert torch.allclose(operator.filtered_backprojection(y), compiled, atol=1e-12)


def test_torch_operators_pass_torch_s_own_checks():
    operator = FanBeam2D((9, 7), ANGLES, **FLAT)
    geometry = (operator.sources[0], operator.directions[0])
    x = torch.randn(2, 9, 7, requires_grad=True)
    y = torch.randn(2, 13, 27, dtype=torch.float64, requires_grad=True)
    assert set(opcheck(fan_projection, (x, *geometry)).values()) == {"SUCCESS"}
    assert set(opcheck(fan_backprojection, (y, *geometry, 9, 7)).values()) == {"SUCCESS"}


def test_large_random_images_keep_the_adjoint_exact():
    operator = FanBeam2D(
        (200, 180),
        torch.arange(40) * 2 * math.pi / 40,
        source_origin=400,
        source_detector=800,
        detector_count=300,
        detector_pitch=2,
    )
    assert adjoint_error(operator) < 1e-6
    x = torch.randn(1, 1, 200, 180, generator=torch.Generator().manual_seed(0))
    oracle = fan_torch.project(x[0], operator.sources[0], operator.directions[0])
    assert torch.allclose(operator(x)[0], oracle, atol=5e-5 * float(oracle.abs().max()))


def test_more_threads_give_the_same():
    operator = FanBeam2D((40, 41), ANGLES, **{**FLAT, "source_origin": 45.0})
    x = torch.randn(2, 1, 40, 41, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            y = operator(x)
            results.append((y, operator.adjoint(y)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector_shape": "round"}, "detector_shape must be flat or arc"),
        ({"source_origin": 60.0}, "0 < source_origin < source_detector"),
        ({"pixel_size": 9.0}, "the image reaches"),
        ({"detector_pitch": 20.0, "detector_shape": "arc"}, "the fan would open"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(OperatorError, match=message):
        FanBeam2D(**{"image_shape": (8, 8), "angles": ANGLES, **FLAT, **changes})


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    x = torch.randn(2, 1, 30, 31, generator=torch.Generator().manual_seed(0))
    parameters = {**FLAT, "source_origin": 45.0}
    operator, on_gpu = FanBeam2D((30, 31), ANGLES, **parameters), FanBeam2D((30, 31), ANGLES, **parameters).cuda()
    y = operator(x)
    assert torch.allclose(on_gpu(x.cuda()).cpu(), y, atol=1e-4)
    assert torch.allclose(on_gpu.adjoint(y.cuda()).cpu(), operator.adjoint(y), atol=1e-3)
    assert adjoint_error(on_gpu) < 1e-6
