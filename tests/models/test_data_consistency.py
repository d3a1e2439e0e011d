"""Data consistency against closed forms and dense matrices."""

import pytest
import torch

from medrecon.models.data_consistency import FIRM, data_consistency, unexplained
from medrecon.models.sampling import denoise, renoise
from medrecon.operators import BlockCompressedSensing, CartesianMRI, LinearOperator
from medrecon.operators.solvers import chebyshev


class Dense(LinearOperator):
    """A matrix, ‖A‖ = 1."""

    def __init__(self, matrix, *, matched=True):
        super().__init__((1, 1, matrix.shape[1]), (matrix.shape[0],))
        self.register_buffer("matrix", (matrix / torch.linalg.matrix_norm(matrix, 2))[None])
        self.adjoint_matched = matched

    def _forward(self, x):
        return x.flatten(1) @ self.matrix[0].T.to(x.dtype)

    def _adjoint(self, y):
        return (y @ self.matrix[0].to(y.dtype)).reshape(-1, *self.image_shape)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_projection_is_the_pseudo_inverse_step():
    operator = BlockCompressedSensing((1, 9, 7), 0.4, block_size=4)
    x, y = draw(2, 1, 9, 7), operator(draw(2, 1, 9, 7, seed=1))
    found = data_consistency(x, y, operator)
    assert torch.allclose(operator(found), y)
    assert torch.allclose(found, operator.project(x, y))


@pytest.mark.parametrize("weight", [0.3, 19.0])
def test_exact_operator_gives_the_minimiser(weight):
    operator = BlockCompressedSensing((1, 4, 4), 0.5, block_size=4)
    x, y = draw(1, 1, 4, 4), draw(1, *operator.data_shape)
    found = data_consistency(x, y, operator, torch.tensor([weight]))
    columns = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
    matrix = operator(columns).flatten(1).T
    system = torch.eye(16, dtype=torch.float64) + weight * matrix.T @ matrix
    wanted = torch.linalg.solve(system, x.flatten() + weight * matrix.T @ y.flatten())
    assert torch.allclose(found.flatten(), wanted)


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_iterative_operator_gives_the_minimiser(weight):
    operator = Dense(draw(7, 10).float())
    x, y = draw(2, 1, 1, 10), draw(2, 7, seed=1)
    matrix = operator.matrix[0].double()
    system = torch.eye(10, dtype=torch.float64) + weight * matrix.T @ matrix
    wanted = torch.linalg.solve(system, (x.flatten(1) + weight * y @ matrix).T).T
    found = data_consistency(x, y, operator, torch.tensor([weight], dtype=torch.float64), iterations=40)
    assert torch.allclose(found.flatten(1), wanted, rtol=1e-6)


def test_without_weight_the_residual_shrinks_most():
    operator = Dense(draw(5, 10).float())
    x, y = draw(1, 1, 1, 10), draw(1, 5, seed=1)
    residuals = [
        float((operator(data_consistency(x, y, operator, weight, iterations=60)) - y).norm())
        for weight in (torch.tensor([1.0]), torch.tensor([FIRM]), None)
    ]
    assert residuals[0] > residuals[1]
    assert residuals[2] == pytest.approx(residuals[1])


def test_approximate_adjoint_takes_a_gradient_step():
    operator = Dense(draw(7, 10).float(), matched=False)
    x, y = draw(1, 1, 1, 10), draw(1, 7, seed=1)
    step = operator.adjoint(operator(x) - y)
    assert torch.allclose(data_consistency(x, y, operator), x - step)
    assert torch.allclose(data_consistency(x, y, operator, torch.tensor([3.0])), x - 0.75 * step)


def test_complex_images_and_one_weight_a_sample():
    operator = CartesianMRI(torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.5)
    x = torch.complex(draw(2, 1, 6, 5), draw(2, 1, 6, 5, seed=1))
    y = operator(torch.complex(draw(2, 1, 6, 5, seed=2), draw(2, 1, 6, 5, seed=3)))
    weights = torch.tensor([1.0, 9.0], dtype=torch.float64)
    whole = data_consistency(x, y, operator, weights)
    for index in range(2):
        single = slice(index, index + 1)
        assert torch.allclose(whole[single], data_consistency(x[single], y[single], operator, weights[single]))


def test_chebyshev_is_differentiable_and_converges():
    matrix = draw(6, 6)
    matrix = matrix @ matrix.T
    matrix = matrix / torch.linalg.matrix_norm(matrix, 2)
    weight = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    b = draw(3, 6, seed=1).requires_grad_()

    def solve(b, weight, iterations=8):
        one = torch.ones_like(weight)
        return chebyshev(lambda x: x + weight * x @ matrix, b, one, one + weight, iterations)

    assert torch.autograd.gradcheck(solve, (b, weight))
    wanted = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + 4 * matrix, b.detach().T).T
    errors = [float((solve(b, weight, count).detach() - wanted).norm() / wanted.norm()) for count in (5, 10, 40)]
    rate = (5**0.5 - 1) / (5**0.5 + 1)
    assert errors[0] < 2 * rate**5
    assert errors[1] < 2 * rate**10
    assert errors[2] < 1e-12


def test_ddim_halves():
    x0, e, bar = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1), torch.tensor([0.37], dtype=torch.float64)
    noisy = renoise(x0, e, bar)
    assert torch.allclose(noisy, 0.37**0.5 * x0 + 0.63**0.5 * e)
    assert torch.allclose(denoise(noisy, e, bar), x0)
    assert torch.equal(renoise(x0, e, torch.ones(1, dtype=torch.float64)), x0)


def test_unexplained_share_is_that_of_least_squares():
    """‖A z - y‖² / ‖y‖² of the dense z for λ = FIRM: next to nothing where y is of an image, nothing without data."""
    operator = Dense(draw(12, 5).float())
    matrix = operator.matrix[0].double()
    y = torch.cat([draw(2, 12, seed=1), draw(1, 5, seed=2) @ matrix.T, torch.zeros(1, 12)])
    system = torch.eye(5, dtype=torch.float64) / FIRM + matrix.T @ matrix
    rest = y - torch.linalg.solve(system, (y @ matrix).T).T @ matrix.T
    found = unexplained(y, operator, torch.zeros(4, 1, 1, 5, dtype=torch.float64), iterations=60)
    assert torch.allclose(found[:3], rest[:3].square().sum(1) / y[:3].square().sum(1), rtol=1e-2)
    assert float(found[:2].min()) > 0.1
    assert float(found[2]) < 0.01
    assert float(found[3]) == 0
