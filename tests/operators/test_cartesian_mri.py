"""Cartesian MRI against a plain restatement with shifts, and the contract."""

import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import CartesianMRI
from medrecon.operators.fourier import centred_fft, centred_ifft
from medrecon.testing import adjoint_error, assert_linear_operator

GRIDS = [(8, 6), (7, 6), (9, 5), (10, 12), (4, 6, 5), (6, 4, 8)]


def gaussian(*shape, seed=0, dtype=torch.complex64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_mask(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sets", [1, 2])
def test_equals_shifted_transform(grid, sets):
    maps, mask, x = gaussian(sets, 3, *grid), random_mask(*grid), gaussian(2, sets, *grid, seed=3)
    operator = CartesianMRI(mask, maps, spatial_dims=len(grid))
    axes = tuple(range(-len(grid), 0))
    expected = mask * centred_fft((maps * x[:, :, None]).sum(1), axes)
    torch.testing.assert_close(operator(x), expected, rtol=1e-5, atol=1e-5)
    y = gaussian(2, 3, *grid, seed=4)
    expected = (maps.conj() * centred_ifft(mask * y, axes)[:, None]).sum(2)
    torch.testing.assert_close(operator.adjoint(y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS[:4])
@pytest.mark.parametrize("kind", ["full", "lines", "points", "weights", "rows"])
def test_contract_multi_coil(grid, kind):
    mask = {
        "full": None,
        "lines": random_mask(grid[1]),
        "rows": random_mask(grid[0], 1),
        "points": random_mask(*grid),
        "weights": torch.rand(grid, generator=torch.Generator().manual_seed(0)),
    }[kind]
    assert_linear_operator(CartesianMRI(mask, gaussian(4, *grid)))


@pytest.mark.parametrize("grid", GRIDS)
def test_contract_single_coil_is_exact(grid):
    operator = CartesianMRI(random_mask(*grid), spatial_dims=len(grid))
    assert operator.pinv_kind == "exact"
    assert_linear_operator(operator)


def test_contract_soft_sense_and_volume():
    assert_linear_operator(CartesianMRI(random_mask(7, 8), gaussian(2, 3, 7, 8)))
    assert_linear_operator(CartesianMRI(random_mask(1, 5, 4), gaussian(3, 6, 5, 4), spatial_dims=3))


def test_operator_per_sample():
    masks, maps = random_mask(3, 8, 6), gaussian(3, 1, 4, 8, 6)
    operator = CartesianMRI(masks, maps)
    assert operator.batch_size == 3
    assert_linear_operator(operator)
    x = gaussian(3, 1, 8, 6, seed=5)
    for index in range(3):
        single = CartesianMRI(masks[index], maps[index])
        torch.testing.assert_close(operator(x)[index], single(x[index : index + 1])[0])
    with pytest.raises(OperatorError, match="built for a batch of 3"):
        operator(x[:2])


def test_double_precision_throughout():
    operator = CartesianMRI(random_mask(7, 9), gaussian(3, 7, 9, dtype=torch.complex128))
    assert adjoint_error(operator, double=True) < 1e-14
    single = CartesianMRI(random_mask(7, 9), dtype=torch.complex128)
    y = gaussian(1, 1, 7, 9, dtype=torch.complex128)
    image = single.pinv(y)
    torch.testing.assert_close(single.pinv(single(image)), image, rtol=1e-13, atol=1e-13)


def test_unitary_when_fully_sampled():
    operator = CartesianMRI(image_shape=(6, 7))
    x = gaussian(2, 1, 6, 7)
    assert operator.unitary
    torch.testing.assert_close(operator(x).norm(), x.norm())


def test_norm_bound_is_tight_for_normalised_maps():
    maps = gaussian(4, 12, 10)
    maps = maps / maps.abs().square().sum(0).sqrt()
    operator = CartesianMRI(random_mask(10), maps, image_shape=(12, 10))
    assert float(operator.norm()) <= float(operator.norm_bound())
    torch.testing.assert_close(operator.norm_bound(), torch.ones(1))


def test_pinv_solves_least_squares():
    mask, maps = random_mask(8, 6), gaussian(4, 8, 6)
    operator = CartesianMRI(mask, maps)
    columns = operator(torch.eye(48, dtype=torch.complex64).reshape(48, 1, 8, 6)).flatten(1).T
    y = gaussian(1, 4, 8, 6, seed=9)
    expected = torch.linalg.pinv(columns) @ y.flatten()
    torch.testing.assert_close(operator.pinv(y, max_iter=500).flatten(), expected, rtol=1e-3, atol=1e-3)


def test_maps_can_be_learned():
    maps = gaussian(3, 6, 4, dtype=torch.complex128).requires_grad_()
    mask, x = random_mask(6, 4), gaussian(1, 1, 6, 4, seed=2, dtype=torch.complex128)

    def measure(maps):
        return CartesianMRI(mask, maps)(x)

    def normal(maps):
        return CartesianMRI(mask, maps).gram(x)

    assert torch.autograd.gradcheck(measure, maps)
    assert torch.autograd.gradcheck(normal, maps)


def test_maps_and_mask_are_given_back():
    mask, maps = random_mask(7, 5), gaussian(2, 3, 7, 5)
    operator = CartesianMRI(mask, maps)
    torch.testing.assert_close(operator.maps, maps[None])
    torch.testing.assert_close(operator.mask, mask[None].float())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.zeros(4, 4)}, "keeps no sample"),
        ({"mask": -torch.ones(4, 4)}, "non-negative"),
        ({"mask": torch.full((4, 4), torch.nan)}, "non-negative"),
        ({"mask": torch.ones(4)}, "give image_shape"),
        ({"mask": torch.ones(5), "image_shape": (4, 4)}, r"does not broadcast to \(batch, 4, 4\)"),
        ({"maps": torch.ones(3, 4, 4)}, "expected complex maps"),
        ({"maps": gaussian(3, 4, 4), "image_shape": (4, 5)}, "expected complex maps"),
        ({"mask": torch.ones(2, 4, 4), "maps": gaussian(3, 1, 2, 4, 4)}, "batch of 2"),
        ({"image_shape": (4, 4), "spatial_dims": 3}, "does not have 3 axes"),
        ({"image_shape": (4,), "spatial_dims": 1}, "must be 2 or 3"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(OperatorError, match=message):
        CartesianMRI(**arguments)


def test_real_image_gets_the_way_out():
    with pytest.raises(OperatorError, match="from_channels"):
        CartesianMRI(image_shape=(4, 4))(torch.ones(1, 1, 4, 4))


@pytest.mark.gpu
def test_same_on_cuda():
    operator = CartesianMRI(random_mask(8, 6), gaussian(4, 8, 6))
    x = gaussian(2, 1, 8, 6)
    expected = operator.gram(x)
    torch.testing.assert_close(operator.cuda().gram(x.cuda()).cpu(), expected)
