import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import Inpainting, LinearOperator
from medrecon.testing import assert_linear_operator


class Matrix(LinearOperator):
    """A dense matrix: what a third party might write, and the oracle for the generic methods."""

    def __init__(self, matrix):
        super().__init__((1, matrix.shape[-1]), (matrix.shape[-2],))
        self.register_buffer("matrix", matrix.reshape(-1, *matrix.shape[-2:]))

    def _forward(self, x):
        return (self.matrix.to(x.dtype) @ x[:, 0, :, None])[..., 0]

    def _adjoint(self, y):
        return (self.matrix.to(y.dtype).mT @ y[..., None])[:, None, :, 0]

    def config(self):
        return {"operator": "test-matrix"}

    @classmethod
    def from_config(cls, config, tensors):
        return cls(tensors["matrix"])


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    from medrecon.operators import registry

    monkeypatch.setitem(registry._registered, "test-matrix", Matrix)


def matrix(rows=5, columns=8, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_plug_in_passes_the_kit():
    assert_linear_operator(Matrix(matrix()))
    assert_linear_operator(Matrix(torch.stack([matrix(seed=s) for s in range(3)])))


def test_pinv_norm_and_proximal_against_linear_algebra():
    a = matrix().double()
    operator = Matrix(a)
    y, x = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 1, 8, dtype=torch.float64)
    torch.testing.assert_close(operator.pinv(y, tol=1e-14)[:, 0], y @ torch.linalg.pinv(a).T)
    norm = torch.linalg.matrix_norm(a, 2)
    torch.testing.assert_close(operator.norm(max_iter=5000, tol=1e-12).double(), norm[None], rtol=1e-5, atol=0)
    weight = torch.tensor([0.1, 10.0], dtype=torch.float64)
    z = operator.proximal(x, y, weight, tol=1e-14)
    for index, w in enumerate(weight):
        system = w * a.T @ a + torch.eye(8)
        expected = torch.linalg.solve(system, w * a.T @ y[index] + x[index, 0])
        torch.testing.assert_close(z[index, 0], expected)


def test_gradients_through_solvers():
    operator = Matrix(matrix().double())
    y = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 1, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: operator.pinv(y, tol=1e-14), y)
    assert torch.autograd.gradcheck(operator.project, (x, y))
    assert torch.autograd.gradcheck(lambda x, y, w: operator.proximal(x, y, w, tol=1e-14), (x, y, weight))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_forward_mode():
    operator = Matrix(matrix().double())
    x = torch.randn(2, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator.forward, x, check_forward_ad=True)


def test_half_precision_is_raised():
    operator = Matrix(matrix())
    x = torch.randn(2, 1, 8)
    assert operator(x.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert operator(x).dtype == torch.float32


def test_error_names_class_expected_and_got():
    message = r"Matrix: expected image of shape \(batch, 1, 8\) and dtype float32, got \(3, 1, 7\) float32"
    with pytest.raises(OperatorError, match=message):
        Matrix(matrix())(torch.ones(3, 1, 7))


def test_state_cannot_be_loaded_over():
    with pytest.raises(OperatorError, match="immutable"):
        Matrix(matrix()).load_state_dict({})


def test_unmatched_adjoint_has_no_pinv():
    operator = Matrix(matrix())
    operator.adjoint_matched = False
    with pytest.raises(OperatorError, match="only approximate"):
        operator.pinv(torch.ones(1, 5))


def test_repr_says_what_it_maps():
    assert "image (1, 8) float32 -> data (5,) float32, pinv iterative" in repr(Matrix(matrix()))


def test_norm_bound_is_computed_once():
    class Counted(Inpainting):
        calls = 0

        def norm(self, **options):
            type(self).calls += 1
            return super(Inpainting, self).norm(**options)

        norm_bound = LinearOperator.norm_bound

    operator = Counted(torch.ones(1, 6, 5))
    assert torch.equal(operator.norm_bound(), operator.norm_bound())
    assert Counted.calls == 1
    learned = Counted(torch.ones(1, 6, 5))
    learned.mask.requires_grad_()
    learned.norm_bound()
    learned.norm_bound()
    assert Counted.calls == 3


def test_shapes_without_data():
    operator = Inpainting(torch.ones(1, 6, 5)).to("meta")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator(torch.empty(2, 1, 6, 5, device="meta"))
    assert (y.shape, y.dtype) == ((2, 1, 6, 5), torch.float32)
