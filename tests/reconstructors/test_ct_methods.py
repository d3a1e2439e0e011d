"""FBP, SIRT, CGLS and TV on X-ray transforms, against the matrix and against each other."""

import math

import pytest
import torch

from medrecon.errors import NumericalError, OperatorError, UsageError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, FanBeam2D, Inpainting, ParallelBeam2D
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
        assert torch.equal(make_method("fbp", {"filter": name})(y, operator), expected)
    clipped = make_method("fbp", {"nonnegative": True})(y, operator)
    assert torch.equal(clipped, make_method("fbp")(y, operator).clamp_min(0))


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


@pytest.mark.parametrize("views", [20, 5])
def test_cgls_reaches_the_least_squares_solution(views):
    operator = ParallelBeam2D((6, 7), torch.arange(views) * math.pi / views + 0.1)
    dense = operator(torch.eye(42, dtype=torch.float64).view(42, 1, 6, 7)).flatten(1).T
    y = torch.rand(2, *operator.data_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = (torch.linalg.pinv(dense, rtol=1e-9) @ y.flatten(1).T).T
    result = make_method("cgls", {"max_iter": 400, "tol": 1e-12})(y, operator)
    assert torch.allclose(result.flatten(1), expected, atol=1e-5)


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


def test_tv_of_complex_images_has_no_sign():
    operator = CartesianMRI(torch.ones(4, 4, dtype=torch.bool), image_shape=(4, 4))
    with pytest.raises(UsageError, match="nonnegative is for real images"):
        make_method("tv", {"nonnegative": True})(torch.ones(1, 1, 4, 4, dtype=torch.complex64), operator)


def test_tv_has_other_defaults_for_x_rays(sparse):
    operator, _, y = sparse
    named = make_method("tv", {"regularization": 0.001, "max_iter": 100})
    assert torch.equal(make_method("tv")(y, operator), named(y, operator))
    assert make_method("tv").settings(operator) == named.config()
    block = BlockCompressedSensing((16, 16), 0.5, block_size=8)
    data = block(disc(16))
    named = make_method("tv", {"regularization": 0.003, "max_iter": 50})
    assert torch.equal(make_method("tv")(data, block), named(data, block))


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
