"""Block compressed sensing against a dense matrix, and the contract of operators."""

import math

import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import BlockCompressedSensing, operator_from_config
from medrecon.testing import adjoint_error, assert_linear_operator


def orders(batch, pixels):
    generator = torch.Generator().manual_seed(4)
    return torch.stack([torch.randperm(pixels, generator=generator) for _ in range(batch)])


OPERATORS = [
    {"image_shape": (1, 8, 8), "ratio": 0.25, "block_size": 4},
    {"image_shape": (2, 9, 7), "ratio": 0.3, "block_size": 4},  # 3 blocks and 15 pixels
    {"image_shape": (3, 5), "ratio": 0.4, "block_size": 4},  # nothing but a short block
    {"image_shape": (1, 6, 6), "ratio": 1.0, "block_size": 3},
    {"image_shape": (1, 6, 5), "ratio": 0.5, "block_size": 3, "permutation": orders(3, 30)},
]


@pytest.mark.parametrize("parameters", OPERATORS, ids=lambda p: str(p["image_shape"]))
def test_contract(parameters):
    assert_linear_operator(BlockCompressedSensing(**parameters))


def test_complex_images():
    parameters = {"image_shape": (2, 7, 5), "ratio": 0.4, "block_size": 4}
    operator = BlockCompressedSensing(**parameters, dtype=torch.complex64)
    assert_linear_operator(operator)
    x = torch.randn(3, 2, 7, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    real = BlockCompressedSensing(**parameters)
    assert torch.equal(operator(x), torch.complex(real(x.real), real(x.imag)))
    again = operator_from_config(operator.config(), operator.tensors())
    assert torch.equal(again(x), operator(x))
    older = {key: value for key, value in real.config().items() if key != "dtype"}
    assert operator_from_config(older, real.tensors()).image_dtype == torch.float32


@pytest.mark.parametrize("parameters", OPERATORS, ids=lambda p: str(p["image_shape"]))
def test_rows_are_orthonormal(parameters):
    operator = BlockCompressedSensing(**parameters)
    batch = operator.batch_size
    count = math.prod(operator.data_shape)
    for row in torch.eye(count, dtype=torch.float64).view(count, 1, *operator.data_shape):
        y = row.expand(batch, *operator.data_shape)
        assert torch.allclose(operator(operator.adjoint(y)), y, atol=1e-13)
    assert torch.equal(operator.norm(), torch.ones(batch))
    assert operator.pinv_kind == "exact"


def test_equals_the_definition_as_a_dense_matrix():
    size, seed = 4, 11
    operator = BlockCompressedSensing((1, 8, 6), 0.3, block_size=size, seed=seed)
    gaussian = torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    # the polar factor by another route: G (G^T G)^(-1/2)
    values, vectors = torch.linalg.eigh(gaussian.T @ gaussian)
    phi = (gaussian @ vectors @ torch.diag(values**-0.5) @ vectors.T)[:, : math.ceil(0.3 * 16)]
    permutation = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
    dense = torch.block_diag(phi.T, phi.T, phi.T) @ torch.eye(48, dtype=torch.float64)[permutation]
    image = torch.randn(2, 1, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(operator(image), image.flatten(2) @ dense.T, atol=1e-12)
    y = operator(image)
    assert torch.allclose(operator.adjoint(y), (y @ dense).view_as(image), atol=1e-12)


@pytest.mark.parametrize(("ratio", "rows"), [(0.1, 103), (0.3, 308), (0.5, 512)])
def test_sizes_of_the_paper(ratio, rows):
    operator = BlockCompressedSensing((1, 64, 32), ratio)
    assert operator.data_shape == (1, 2 * rows)
    assert adjoint_error(operator) < 1e-6
    assert adjoint_error(operator, double=True) < 1e-12


def test_rounding_up_ignores_the_last_bit():
    assert 0.07 * 100 > 7
    assert BlockCompressedSensing((1, 10, 10), 0.07, block_size=10).data_shape == (1, 7)


def test_channels_are_measured_alike():
    operator = BlockCompressedSensing((3, 6, 7), 0.5, block_size=4)
    image = torch.randn(1, 1, 6, 7, generator=torch.Generator().manual_seed(0)).expand(1, 3, 6, 7)
    y = operator(image)
    assert torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(y[:, 0], y[:, 2])


def test_seeds_are_all_that_is_stored():
    operator = BlockCompressedSensing((1, 9, 7), 0.3, block_size=4, seed=1, permutation_seed=5)
    assert operator.state_dict() == {}
    again = operator_from_config(operator.config(), operator.tensors())
    image = torch.ones(1, 1, 9, 7) * torch.arange(7)
    assert torch.equal(operator(image), again(image))
    other = BlockCompressedSensing((1, 9, 7), 0.3, block_size=4, seed=1, permutation_seed=6)
    assert not torch.allclose(operator(image), other(image))
    assert torch.equal(operator.phi, other.phi)


def test_a_given_permutation_is_stored_and_copied():
    given = orders(2, 30)
    operator = BlockCompressedSensing((1, 6, 5), 0.5, block_size=3, permutation=given)
    assert torch.equal(operator.tensors()["permutation"], given)
    given[:] = 0
    assert operator.permutation.amax() == 29
    single = BlockCompressedSensing((1, 6, 5), 0.5, block_size=3, permutation=operator.permutation[1])
    image = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(operator(image)[1:], single(image[1:]), atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ratio": 0}, "ratio must be in"),
        ({"ratio": 1.1}, "ratio must be in"),
        ({"block_size": 0}, "block_size"),
        ({"image_shape": (4,)}, "image_shape"),
        ({"image_shape": (1, 0, 4)}, "image_shape"),
        ({"permutation": torch.zeros(24, dtype=torch.long)}, "permutations of 0 … 23"),
        ({"permutation": torch.arange(24.0)}, "permutations"),
        ({"permutation": torch.arange(23)}, "permutations"),
        ({"permutation": torch.tensor(3)}, "permutations"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(OperatorError, match=message):
        BlockCompressedSensing(**{"image_shape": (1, 6, 4), "ratio": 0.5, "block_size": 2, **parameters})
