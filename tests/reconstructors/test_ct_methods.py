"""FBP, SIRT, CGLS and TV on X-ray transforms, against the matrix and against each other."""

import math

import pytest
import torch

from medrecon.errors import NumericalError, OperatorError, UsageError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, FanBeam2D, Inpainting, ParallelBeam2D
from medrecon.optimization.tv_prox import TotalVariationProx
from medrecon.reconstructors import make_method
from medrecon.simulation.photons import photon_counts


def disc(size, pixel=1.0, value=0.02):
    y, x = torch.meshgrid((size - 1) / 2 - torch.arange(size), torch.arange(size) - (size - 1) / 2, indexing="ij")
    image = ((x - 0.05 * size) ** 2 + y**2 < (0.38 * size) ** 2) * value
    image += ((x + 0.1 * size) ** 2 + (y - 0.1 * size) ** 2 < (0.1 * size) ** 2) * value / 2
    return image.float()[None, None] / pixel


@pytest.fixture(scope="module")
def sparse():
    """Thirty views of 1e5 photons: operator, image, line integrals."""
    operator = ParallelBeam2D((96, 96), torch.arange(30) * math.pi / 30, pixel_size=2.0)
    image = disc(96)
    counts = photon_counts(operator(image), counts=1e5, generator=torch.Generator().manual_seed(0))
    return operator, image, -torch.log(counts.clamp_min(0.1) / 1e5)


def psnr(image, truth):
    return float(10 * torch.log10(truth.max() ** 2 / (image - truth).square().mean()))


def test_fbp_is_the_operator_s():
    operator = ParallelBeam2D((24, 24), torch.arange(40) * math.pi / 40)
    y = operator(disc(24))
    for name in ("ram-lak", "hann"):
        expected = operator.filtered_backprojection(y, window=name)
        assert torch.allclose(make_method("fbp", {"filter": name})(y, operator), expected, atol=1e-7)
    clipped = make_method("fbp", {"nonnegative": True})(y, operator)
    assert torch.allclose(clipped, make_method("fbp")(y, operator).clamp_min(0), atol=1e-7)


def test_fbp_needs_an_x_ray_transform():
    operator = Inpainting(torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(UsageError, match="not for Inpainting; use the method adjoint"):
        make_method("fbp")(torch.ones(1, 1, 4, 4), operator)


def test_what_each_method_is_good_for(sparse):
    operator, image, y = sparse
    quality = {name: psnr(make_method(name)(y, operator), image) for name in ("fbp", "sirt", "cgls", "tv")}
    smooth = psnr(make_method("fbp", {"filter": "hann"})(y, operator), image)
    assert quality["fbp"] < smooth < quality["cgls"] < quality["sirt"] < quality["tv"]
    assert quality["tv"] > quality["fbp"] + 10


def test_sirt_is_its_definition():
    operator = ParallelBeam2D((7, 8), torch.arange(9) * math.pi / 9)
    dense = operator(torch.eye(56, dtype=torch.float64).view(56, 1, 7, 8)).flatten(1).T
    y = operator(torch.rand(1, 1, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    rows, columns = dense.sum(1), dense.sum(0)
    r = torch.where(rows > 1e-6 * rows.max(), 1 / rows, 0)
    x = torch.zeros(56, dtype=torch.float64)
    for _ in range(12):
        x = x + (dense.T @ (r * (y.flatten() - dense @ x))) / columns
    result = make_method("sirt", {"max_iter": 12, "nonnegative": False})(y, operator)
    assert torch.allclose(result.flatten(), x, atol=1e-10)


def test_sirt_stays_above_zero(sparse):
    operator, _, y = sparse
    assert float(make_method("sirt", {"max_iter": 20})(y, operator).min()) == 0
    assert float(make_method("sirt", {"max_iter": 20, "nonnegative": False})(y, operator).min()) < 0


def test_sirt_is_for_real_operators():
    operator = CartesianMRI(torch.ones(4, 4, dtype=torch.bool), image_shape=(4, 4))
    with pytest.raises(OperatorError, match="CartesianMRI is complex"):
        make_method("sirt")(torch.ones(1, 1, 4, 4, dtype=torch.complex64), operator)


def test_sirt_refuses_entries_of_both_signs():
    """Their sums say nothing about their size: it would diverge, or stand still at zero."""
    block = BlockCompressedSensing((1, 16, 16), 0.5, block_size=8)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(OperatorError, match=r"entries >= 0, those of BlockCompressedSensing .* use cgls or tv"):
        make_method("sirt")(block(image), block)
    negated = -1.0 * Inpainting(torch.ones(1, 16, 16, dtype=torch.bool))
    with pytest.raises(OperatorError, match="are negative"):
        make_method("sirt")(negated(image), negated)


def test_sirt_keeps_untouched_pixels_and_rays_at_zero():
    operator = ParallelBeam2D((24, 24), torch.tensor([0, math.pi / 2]), detector_count=9)
    rays = operator.adjoint(torch.ones(1, *operator.data_shape))
    result = make_method("sirt", {"max_iter": 50})(operator(disc(24)), operator)
    assert bool(torch.isfinite(result).all())
    assert bool((rays == 0).any())
    assert float(result[rays == 0].abs().max()) == 0
    assert float(result.max()) > 0.01
    beside = ParallelBeam2D((24, 24), torch.arange(20) * math.pi / 20, detector_count=9, detector_offset=1e3)
    assert float(make_method("sirt")(torch.ones(1, 1, 20, 9), beside).abs().max()) == 0


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (11, 3), (13, 14)])
def test_sirt_converges(geometry, shape):
    """C A^T R A has no eigenvalue of 2 or more although interpolation has negative lobes."""
    angles = torch.arange(3) * 1.1
    if geometry == "parallel":
        operator = ParallelBeam2D(shape, angles, detector_pitch=0.7, detector_offset=0.3)
    else:
        operator = FanBeam2D(shape, angles, source_origin=30, source_detector=60, detector_count=41, detector_pitch=0.9)
    y = operator(torch.rand(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    method = {"nonnegative": False, "tol": 0.0}
    misfits = [
        float((operator(make_method("sirt", {**method, "max_iter": count})(y, operator)) - y).norm() / y.norm())
        for count in (10, 400)
    ]
    assert misfits[1] < max(0.25 * misfits[0], 1e-9)  # slow, but it would explode otherwise


@pytest.mark.parametrize("name", ["sirt", "cgls"])
@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_scales_with_the_data(name, factor, sparse):
    operator, _, y = sparse
    method = make_method(name, {"max_iter": 8})
    expected = method(y, operator)
    result = method(y * factor, operator).double() / factor
    assert float((result - expected).norm() / expected.norm()) < 0.01


@pytest.mark.parametrize("name", ["sirt", "cgls"])
def test_scale_of_the_operator(name):
    """A norm that squares out of single precision, and another for every sample."""
    operator = ParallelBeam2D((16, 16), torch.arange(20) * math.pi / 20)
    image = disc(16).expand(2, -1, -1, -1)
    method = make_method(name, {"max_iter": 8})
    expected = method(operator(image), operator)
    for factors in ([1e-12, 1e12], [1e4, 1e-4]):
        scaled = operator * torch.tensor(factors)
        result = method(scaled(image), scaled)
        for index in range(2):
            assert float((result[index] - expected[index]).norm() / expected[index].norm()) < 0.02


@pytest.mark.parametrize("views", [20, 5])
def test_cgls_reaches_the_least_squares_solution(views):
    operator = ParallelBeam2D((6, 7), torch.arange(views) * math.pi / views + 0.1)
    dense = operator(torch.eye(42, dtype=torch.float64).view(42, 1, 6, 7)).flatten(1).T
    y = torch.rand(2, *operator.data_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = (torch.linalg.pinv(dense, rtol=1e-9) @ y.flatten(1).T).T
    result = make_method("cgls", {"max_iter": 400, "tol": 1e-12})(y, operator)
    assert torch.allclose(result.flatten(1), expected, atol=1e-5)


def test_cgls_needs_the_exact_adjoint(sparse):
    class Unmatched(ParallelBeam2D):
        adjoint_matched = False

    operator = Unmatched((96, 96), torch.arange(30) * math.pi / 30, pixel_size=2.0)
    with pytest.raises(OperatorError, match="that of Unmatched is approximate; use the method sirt"):
        make_method("cgls")(sparse[2], operator)


@pytest.mark.parametrize("name", ["fbp", "sirt", "cgls", "tv"])
def test_rebuilt_from_its_config(name, sparse):
    operator, _, y = sparse
    given = {"fbp": {"filter": "cosine", "nonnegative": True}}.get(name, {"max_iter": 3})
    method = make_method(name, given)
    again = make_method(name, method.config())
    assert again.config() == method.config()
    assert given.items() <= method.config().items()
    assert torch.allclose(again(y, operator), method(y, operator), atol=1e-6)


def test_cgls_takes_complex_operators():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, ::2] = True
    operator = CartesianMRI(mask, image_shape=(8, 8))
    x = torch.randn(1, 1, 8, 8, dtype=torch.complex64)
    y = operator(x)
    assert torch.allclose(make_method("cgls")(y, operator), operator.pinv(y), atol=1e-5)


@pytest.mark.parametrize("name", ["fbp", "sirt", "cgls", "tv"])
def test_samples_do_not_see_each_other(name):
    operator = FanBeam2D(
        (16, 16), torch.arange(20.0), source_origin=40, source_detector=80, detector_count=50, detector_pitch=1.5
    )
    image = torch.cat([disc(16), 1e4 * disc(16).roll(2, 3), torch.zeros(1, 1, 16, 16)])
    y = operator(image)
    together = make_method(name)(y, operator)
    for index in range(3):
        alone = make_method(name)(y[index : index + 1], operator)
        assert torch.allclose(together[index], alone[0], rtol=1e-3, atol=1e-4 * float(image[index].max()))


@pytest.mark.parametrize("name", ["fbp", "sirt", "cgls", "tv"])
def test_nan(name, sparse):
    operator, _, y = sparse
    bad = y.clone()
    bad[0, 0, 3, 4] = math.nan
    with pytest.raises(NumericalError, match="NaN"):
        make_method(name)(bad, operator)


@pytest.mark.parametrize("name", ["sirt", "cgls"])
def test_progress(name, sparse):
    operator, _, y = sparse
    calls = []
    make_method(name, {"max_iter": 4})(y, operator, progress=lambda *call: calls.append(call))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_tv_without_negative_values(sparse):
    operator, image, y = sparse
    free = make_method("tv", {"max_iter": 40})(y, operator)
    bound = make_method("tv", {"max_iter": 40, "nonnegative": True})(y, operator)
    assert float(free.min()) < 0 == float(bound.min())
    assert psnr(bound, image) > psnr(free, image)


def test_proximal_map_of_constrained_tv_is_the_minimum():
    """Against a smooth descent on the same convex objective: no point x >= 0 nearby is lower."""
    v = 0.5 * torch.randn(2, 1, 1, 11, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    prox = TotalVariationProx(v, nonnegative=True)
    for _ in range(20):
        x = prox(v, 500, torch.tensor([0.2]))
    assert float(x.min()) == 0
    assert float((x == 0).double().mean()) > 0.2
    plain = TotalVariationProx(v)
    for _ in range(20):
        clipped = plain(v, 500, torch.tensor([0.2]))
    clipped = clipped.clamp_min(0)

    def value(z):
        steps = [torch.diff(z, dim=axis, append=z.narrow(axis, -1, 1)) for axis in (3, 4)]
        return float(0.5 * (z - v).square().sum() + 0.2 * (steps[0].square() + steps[1].square()).sqrt().sum())

    assert value(x) < value(clipped) - 1e-4  # clipping the free minimum is not the constrained one
    generator = torch.Generator().manual_seed(4)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            step = size * torch.randn(v.shape, dtype=v.dtype, generator=generator)
            assert value(x) <= value((x + step).clamp_min(0))
        assert value(x) <= value(x * (1 - size))
        assert value(x) <= value(x * (1 + size))


def test_tv_of_complex_images_has_no_sign():
    operator = CartesianMRI(torch.ones(4, 4, dtype=torch.bool), image_shape=(4, 4))
    with pytest.raises(UsageError, match="nonnegative is for real images"):
        make_method("tv", {"nonnegative": True})(torch.ones(1, 1, 4, 4, dtype=torch.complex64), operator)


def test_tv_has_other_defaults_for_x_rays(sparse):
    operator, _, y = sparse
    named = make_method("tv", {"regularization": 0.0005, "max_iter": 100})
    assert torch.allclose(make_method("tv")(y, operator), named(y, operator), atol=1e-5)
    assert make_method("tv").settings(operator) == named.config()
    block = BlockCompressedSensing((16, 16), 0.5, block_size=8)
    data = block(disc(16))
    named = make_method("tv", {"regularization": 0.003, "max_iter": 50})
    assert torch.allclose(make_method("tv")(data, block), named(data, block), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("fbp", {"filter": "hanning"}, "fbp: filter must be one of ram-lak"),
        ("fbp", {"nonnegative": 1}, "nonnegative must be true or false"),
        ("sirt", {"max_iter": 0}, "sirt: max_iter"),
        ("cgls", {"tol": 2.0}, "cgls: tol"),
        ("tv", {"nonnegative": "yes"}, "tv: nonnegative"),
    ],
)
def test_parameters(name, parameters, message):
    with pytest.raises(UsageError, match=message):
        make_method(name, parameters)
