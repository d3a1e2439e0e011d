"""Parallel beams against closed forms, a matrix built ray by ray, and the contract of operators."""

import math

import numpy as np
import pytest
import torch
from torch.library import opcheck

from medrecon.errors import OperatorError
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct import backends, parallel_torch
from medrecon.operators.ct.parallel_beam import angular_weights
from medrecon.operators.ct.parallel_ops import parallel_backprojection, parallel_projection
from medrecon.testing import adjoint_error, assert_linear_operator

ANGLES = torch.arange(17) * math.pi / 17
ODD = torch.tensor([0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4, math.pi, -0.3, 2.0, 7.0])
GEOMETRIES = [
    {"image_shape": (9, 13), "angles": ANGLES},
    {"image_shape": (2, 9, 13), "angles": ODD, "pixel_size": 0.7, "detector_pitch": 0.31, "detector_offset": 0.3},
    {"image_shape": (1, 12, 7), "angles": ANGLES, "detector_pitch": 2.3, "center_of_rotation": 0.4},
    {"image_shape": (5, 11), "angles": ODD, "image_center": (1.5, -2.0), "detector_count": 9},
    {"image_shape": (1, 1), "angles": ODD},
    {"image_shape": (1, 8, 9), "angles": torch.stack([ODD, ODD + 0.1, 2 * ODD])},
]


def line(points):
    """Joseph's weights of one row or column, restated: linear interpolation at the points, zero outside."""
    size, positions = points
    weights = np.zeros((len(positions), size))
    for ray, q in enumerate(positions):
        left = math.floor(q)
        for index, weight in ((left, left + 1 - q), (left + 1, q - left)):
            if 0 <= index < size:
                weights[ray, index] += weight
    return weights


def joseph(height, width, views, pitch, count):
    """The dense matrix (views · bins, H · W)."""
    blocks = []
    for c, s, u0 in views:
        u = u0 + pitch * np.arange(count)
        block = np.zeros((count, height, width))
        if abs(c) >= abs(s):
            for i in range(height):
                q = (u - ((height - 1) / 2 - i) * s) / c + (width - 1) / 2
                block[:, i, :] = line((width, q))
        else:
            for j in range(width):
                q = (height - 1) / 2 - (u - (j - (width - 1) / 2) * c) / s
                block[:, :, j] = line((height, q))
        blocks.append(block.reshape(count, -1) / max(abs(c), abs(s)))
    return np.concatenate(blocks)


@pytest.mark.parametrize("parameters", GEOMETRIES, ids=lambda p: f"{p['image_shape']}")
def test_contract(parameters):
    assert_linear_operator(ParallelBeam2D(**parameters))


@pytest.mark.parametrize("parameters", GEOMETRIES[:4], ids=lambda p: f"{p['image_shape']}")
def test_contract_without_numba(parameters, monkeypatch):
    monkeypatch.setattr(backends, "_present", lambda _: False)
    assert_linear_operator(ParallelBeam2D(**parameters))


@pytest.mark.parametrize(("height", "width", "pitch", "count"), [(7, 10, 1.0, 15), (10, 6, 0.3, 40), (8, 8, 2.5, 6)])
def test_torch_is_joseph(height, width, pitch, count):
    views = ParallelBeam2D((height, width), ODD, detector_count=count, detector_pitch=pitch, detector_offset=0.2).views[
        0
    ]
    dense = torch.from_numpy(joseph(height, width, views.numpy(), pitch, count))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, height, width, dtype=torch.float64, generator=generator)
    y = torch.randn(3, len(ODD), count, dtype=torch.float64, generator=generator)
    assert torch.allclose(parallel_torch.project(x, views, pitch, count).flatten(1), x.flatten(1) @ dense.T, atol=1e-11)
    back = parallel_torch.backproject(y, views, pitch, height, width)
    assert torch.allclose(back.flatten(1), y.flatten(1) @ dense, atol=1e-11)


def keys(t):
    """Weights of the cubic convolution with a = -5/8 at distances t."""
    a, t = -0.625, np.abs(t)
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def test_numba_is_joseph_read_from_grids_of_half_a_pixel():
    """The definition of the shear-sum projector, restated with Joseph's matrix for the rays of the grid."""
    pytest.importorskip("numba")
    from medrecon.operators.ct import parallel_numba

    height, width, pitch, count = 9, 12, 0.83, 21
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width))
    for angle in (0.0, 0.3, -0.7, 1.2, 2.0, math.pi / 2, 3.0):
        c, s = math.cos(angle), math.sin(angle)
        view = np.array([[c, s, -8.1]])
        m = max(abs(c), abs(s))
        # rays of the fine grid: p = u / m (up to sign) at multiples of 1/2
        fine = np.arange(-60, 61) / 2
        grid = joseph(height, width, [(c, s, -30 * m)], m / 2, len(fine)) @ x.reshape(2, -1).T
        u = view[0, 2] + pitch * np.arange(count)
        weights = keys((u[:, None] / m - fine) * 2)
        expected = (weights @ grid).T
        assert np.allclose(parallel_numba.project(x, view, pitch, count)[:, 0], expected, atol=1e-10), angle


@pytest.mark.parametrize(("size", "views", "pitch"), [(64, 90, 1.0), (100, 60, 0.5), (96, 45, 1.7)])
def test_line_integrals_of_ellipses(phantom, size, views, pitch):
    """No worse than Joseph's exact sums, and both close to the truth."""
    angles = torch.arange(views, dtype=torch.float64) * math.pi / views
    pixel = 0.6
    true = phantom(size / 2 * pixel)
    operator = ParallelBeam2D((size, size), angles, pixel_size=pixel, detector_pitch=pitch, detector_offset=0.11)
    bins = operator.detector_count
    u = (torch.arange(bins, dtype=torch.float64) - (bins - 1) / 2) * pitch + 0.11
    truth = true.integrals(angles[:, None], u)
    image = true.image(size)
    ours = operator(image[None, None])[0, 0]
    exact = parallel_torch.project(image[None], operator.views[0], pitch / pixel, bins)[0] * pixel
    error, joseph_error = ((a - truth).norm() / truth.norm() for a in (ours, exact))
    assert error < 0.025
    assert error < 1.005 * joseph_error


def test_offset_center_and_image_center_are_one_shift_each(phantom):
    """A detector moved to the right sees what an object moved to the left shows; the axis moves the other way."""
    image = phantom(20).image(40)[None, None]
    plain = ParallelBeam2D((40, 40), ANGLES, detector_count=81)
    moved = ParallelBeam2D((40, 40), ANGLES, detector_count=81, detector_offset=3.0)
    axis = ParallelBeam2D((40, 40), ANGLES, detector_count=81, center_of_rotation=-3.0)
    assert torch.allclose(moved(image)[..., :-3], plain(image)[..., 3:], atol=1e-5)
    assert torch.equal(moved(image), axis(image))
    shifted = ParallelBeam2D((40, 40), ANGLES, detector_count=81, image_center=(2.0, -1.0))
    rolled = torch.roll(torch.nn.functional.pad(image, (5, 5, 5, 5)), (1, 2), (2, 3))
    large = ParallelBeam2D((50, 50), ANGLES, detector_count=81)
    gap = shifted(image) - large(rolled)  # the two read grids that start at other fractions of a pixel
    assert float(gap.norm() / plain(image).norm()) < 5e-3


def test_turning_the_image_turns_the_views(phantom):
    image = phantom(16).image(33)[None, None]
    quarter = ParallelBeam2D((33, 33), ANGLES + math.pi / 2)
    assert torch.allclose(quarter(image.rot90(1, (2, 3))), ParallelBeam2D((33, 33), ANGLES)(image), atol=1e-4)


@pytest.mark.parametrize(
    ("pixel", "pitch", "turns", "offset"), [(1, 1, 0.5, 0), (0.7, 0.5, 0.5, 2.2), (0.7, 1.4, 1, 0)]
)
def test_filtered_backprojection_returns_the_image(phantom, pixel, pitch, turns, offset):
    size = 96
    true = phantom(size / 2 * pixel)
    image = true.image(size)[None, None] * 0.02
    angles = torch.arange(300) * (turns * 2 * math.pi / 300) + 0.2
    operator = ParallelBeam2D((size, size), angles, pixel_size=pixel, detector_pitch=pitch, center_of_rotation=offset)
    result = operator.filtered_backprojection(operator(image))
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[44:52, 30:36] = True
    assert float(result[0, 0][inside].mean() / image[0, 0][inside].mean()) == pytest.approx(1, abs=0.01)
    assert float((result * image).sum() / (image * image).sum()) == pytest.approx(1, abs=0.03)
    assert torch.allclose(operator.initial(operator(image)), result, atol=1e-7)


def test_filtered_backprojection_is_linear_and_differentiable():
    operator = ParallelBeam2D((9, 11), ANGLES)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(2, *operator.data_shape, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(operator.filtered_backprojection, (y,))


def test_views_that_come_twice_share_their_weight():
    weights = angular_weights(torch.cat([ANGLES, ANGLES + math.pi])[None].double())
    assert torch.allclose(weights, torch.full((1, 34), math.pi / 34, dtype=torch.float64), atol=1e-6)


def test_a_missing_wedge_is_nobody_s():
    weights = angular_weights((torch.arange(60) * math.radians(2))[None].double())
    assert torch.allclose(weights, torch.full((1, 60), math.radians(2), dtype=torch.float64), atol=1e-6)


def test_irregular_views_weigh_by_their_gaps():
    weights = angular_weights(torch.tensor([[0.0, 0.2, 0.6, 1.0, 1.4, 1.8, 2.2, 2.6, 3.0]]).double())
    assert float(weights.sum()) == pytest.approx(math.pi)
    assert float(weights[0, 1]) == pytest.approx(0.3)


def test_torch_operators_pass_torch_s_own_checks():
    views = ParallelBeam2D((9, 7), ANGLES).views[0]
    x = torch.randn(2, 9, 7, requires_grad=True)
    y = torch.randn(2, 17, 13, dtype=torch.float64, requires_grad=True)
    assert set(opcheck(parallel_projection, (x, views, 1.0, 13)).values()) == {"SUCCESS"}
    assert set(opcheck(parallel_backprojection, (y, views, 0.5, 9, 7)).values()) == {"SUCCESS"}


def test_second_derivative_of_the_residual():
    """The Hessian of ½‖A x - y‖² is A^T A, also by differentiating the registered operators twice."""
    operator = ParallelBeam2D((9, 7), ANGLES)
    x = torch.randn(1, 9, 7, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(1, 9, 7, dtype=torch.float64)
    residual = parallel_projection(x, operator.views[0], 1.0, operator.detector_count)
    (slope,) = torch.autograd.grad(0.5 * residual.square().sum(), x, create_graph=True)
    (product,) = torch.autograd.grad((slope * direction).sum(), x)
    assert torch.allclose(product[None], operator.gram(direction[None]), atol=1e-10)


def test_more_threads_give_the_same(phantom):
    """Work is split by views and by lines: no sum is shared, so not even the rounding differs."""
    operator = ParallelBeam2D((64, 61), torch.arange(50) * math.pi / 50)
    x = torch.randn(2, 1, 64, 61, generator=torch.Generator().manual_seed(0))
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


def test_large_random_images_keep_the_adjoint_exact():
    operator = ParallelBeam2D((256, 256), torch.arange(60) * math.pi / 60, detector_count=256)
    assert adjoint_error(operator) < 1e-6


def test_norm_is_the_largest_singular_value():
    operator = ParallelBeam2D((10, 9), ANGLES, pixel_size=0.8)
    columns = torch.eye(90, dtype=torch.float64).view(90, 1, 10, 9)
    singular = torch.linalg.matrix_norm(operator(columns).flatten(1), 2)
    assert float(operator.norm()[0]) == pytest.approx(float(singular), rel=1e-4)
    assert float(operator.norm_bound()[0]) >= float(singular)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (0, 4)}, "positive sizes"),
        ({"image_shape": (4,)}, "expected an image_shape"),
        ({"angles": torch.zeros(2, 3, 4)}, "angles in radians of shape"),
        ({"angles": torch.tensor([0.0, math.nan])}, "NaN or Inf"),
        ({"detector_count": 0}, "detector_count must be at least 1"),
        ({"detector_pitch": -1.0}, "detector_pitch must be a positive length"),
        ({"pixel_size": math.inf}, "pixel_size must be a positive length"),
        ({"center_of_rotation": math.nan}, "must be finite"),
        ({"pixel_size": 1e300}, "pixel_size must be a positive length"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(OperatorError, match=message):
        ParallelBeam2D(**{"image_shape": (4, 4), "angles": ANGLES, "detector_count": 5, **changes})


def test_degrees_given_as_radians_are_noticed(caplog):
    ParallelBeam2D((4, 4), torch.arange(180.0))
    assert "degrees" in caplog.text


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(phantom):
    operator = ParallelBeam2D((64, 64), torch.arange(90) * math.pi / 90)
    x = phantom(32).image(64)[None, None]
    on_gpu = ParallelBeam2D((64, 64), torch.arange(90) * math.pi / 90).cuda()
    y = on_gpu(x.cuda()).cpu()
    oracle = parallel_torch.project(x[0], operator.views[0], 1.0, operator.detector_count)
    assert torch.allclose(y[0], oracle, atol=1e-4 * float(oracle.max()))
    assert adjoint_error(on_gpu) < 1e-6
