"""The test every forward operator must pass, ours and yours.

>>> import torch
>>> from medrecon.operators import Inpainting
>>> from medrecon.testing import assert_linear_operator
>>> assert_linear_operator(Inpainting(torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.5))
"""

import copy
import pickle
from collections.abc import Callable

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.registry import operator_from_config
from medrecon.operators.solvers import inner

_DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def adjoint_error(operator: LinearOperator, *, double: bool = False, seed: int = 0) -> float:
    """Return max over samples of |Re<A x, y> - Re<x, A^H y>| / (‖A x‖ ‖y‖) for Gaussian x and y."""
    draw = _Draw(operator, seed, double=double)
    x, y = draw.image(), draw.data()
    ax = operator(x)
    gap = inner(ax, y) - inner(x, operator.adjoint(y))
    scale = (inner(ax, ax) * inner(y, y)).sqrt().clamp_min(1e-30)
    return float((gap.abs() / scale).max())


def assert_linear_operator(
    operator: LinearOperator,
    *,
    tol: float = 1e-6,
    tol_double: float = 1e-12,
    tol_pinv: float = 1e-2,
    seed: int = 0,
) -> None:
    """Assert everything that the contract of :class:`~medrecon.operators.LinearOperator` promises.

    Shapes and dtypes; linearity; the adjoint in single and double precision; autograd once and twice;
    gram, norm and pseudo-inverse against their definitions; an honest ``pinv_kind``; immutability;
    batch equals loop; config, pickle and deepcopy; the autocast guard; errors that name the class.

    Parameters
    ----------
    operator
        Any operator with a small grid (the checks apply it some hundred times).
    tol, tol_double
        Relative error of adjoint and linearity in single and double precision.
    tol_pinv
        Relative residual of the iterative pseudo-inverse on consistent data.
    seed
        For the random images and measurements.

    Raises
    ------
    AssertionError
        Naming the class and the broken promise.
    """
    before = {name: buffer.clone() for name, buffer in operator.named_buffers()}
    for check in (_shapes, _autograd, _gram_and_norm, _rebuild, _errors):
        check(operator, seed)
    _linearity(operator, seed, tol)
    _batch(operator, seed, tol)
    if operator.adjoint_matched:
        for double, bound in ((False, tol), (True, tol_double)):
            error = adjoint_error(operator, double=double, seed=seed)
            _require(operator, error <= bound, f"adjoint error {error:.1e} > {bound:.0e} (double={double})")
        _pseudo_inverse(operator, seed, tol_pinv)
    after = dict(operator.named_buffers())
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    _require(operator, same, "a call changed a buffer: operators are immutable")


class _Draw:
    """Gaussian images and measurements for an operator, drawn on the CPU."""

    def __init__(self, operator: LinearOperator, seed: int, *, double: bool = False, batch: int = 3) -> None:
        self.operator = operator
        self.generator = torch.Generator().manual_seed(seed)
        self.double = double
        self.batch = operator.batch_size if operator.batch_size > 1 else batch

    def image(self) -> Tensor:
        return self._draw(self.operator.image_shape, self.operator.image_dtype)

    def data(self) -> Tensor:
        return self._draw(self.operator.data_shape, self.operator.data_dtype)

    def _draw(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        dtype = _DOUBLE[dtype] if self.double else dtype
        return torch.randn((self.batch, *shape), dtype=dtype, generator=self.generator).to(self.operator.device)


def _require(operator: LinearOperator, condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(f"{type(operator).__name__}: {message}")


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm().clamp_min(1e-30))


def _shapes(operator: LinearOperator, seed: int) -> None:
    for double in (False, True):
        draw = _Draw(operator, seed, double=double)
        x, y = draw.image(), draw.data()
        for result, like, what in ((operator(x), y, "forward"), (operator.adjoint(y), x, "adjoint")):
            shapes = f"{what} returns {tuple(result.shape)}, not {tuple(like.shape)}"
            _require(operator, result.shape == like.shape, shapes)
            _require(operator, result.dtype == like.dtype, f"{what} returns {result.dtype}, not {like.dtype}")


def _linearity(operator: LinearOperator, seed: int, tol: float) -> None:
    draw = _Draw(operator, seed)
    for apply, a, b in (
        (operator.forward, draw.image(), draw.image()),
        (operator.adjoint, draw.data(), draw.data()),
    ):
        error = _relative(apply(2.5 * a - b), 2.5 * apply(a) - apply(b))
        _require(operator, error <= 10 * tol, f"not linear: relative error {error:.1e}")


def _batch(operator: LinearOperator, seed: int, tol: float) -> None:
    if operator.batch_size > 1:
        return  # its samples cannot be applied one by one
    draw = _Draw(operator, seed)
    for apply, batch in ((operator.forward, draw.image()), (operator.adjoint, draw.data())):
        one_by_one = torch.cat([apply(sample[None]) for sample in batch])
        _require(operator, _relative(apply(batch), one_by_one) <= tol, "a batch differs from its samples one by one")


def _autograd(operator: LinearOperator, seed: int) -> None:
    draw = _Draw(operator, seed, double=True)
    x, y = draw.image().requires_grad_(), draw.data().requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x), x, y, create_graph=True)
    _require(operator, _relative(gradient, operator.adjoint(y)) <= 1e-10, "the derivative of forward is not adjoint")
    (again,) = torch.autograd.grad(gradient, y, x.detach(), retain_graph=True)
    _require(operator, _relative(again, operator(x.detach())) <= 1e-10, "the second derivative is wrong")
    (gradient,) = torch.autograd.grad(operator.adjoint(y), y, x.detach())
    _require(operator, _relative(gradient, operator(x.detach())) <= 1e-10, "the derivative of adjoint is not forward")


def _gram_and_norm(operator: LinearOperator, seed: int) -> None:
    draw = _Draw(operator, seed, double=True)
    x = draw.image()
    error = _relative(operator.gram(x), operator.adjoint(operator(x)))
    _require(operator, error <= 1e-6, f"gram is not adjoint(forward): relative error {error:.1e}")
    norm, bound = operator.norm(), operator.norm_bound()
    _require(operator, bool((bound >= norm * (1 - 1e-4)).all()), f"norm_bound {bound.tolist()} < norm {norm.tolist()}")
    gain = (inner(operator(x), operator(x)) / inner(x, x)).sqrt()
    _require(operator, bool((gain <= norm * (1 + 1e-2)).all()), f"‖A x‖/‖x‖ {gain.tolist()} > norm {norm.tolist()}")


def _pseudo_inverse(operator: LinearOperator, seed: int, tol: float) -> None:
    draw = _Draw(operator, seed)
    x, y = draw.image(), draw.data()
    data = operator(x)
    exact = operator.pinv_kind == "exact"
    if operator.pinv_kind != "approximate":
        residual = _relative(operator(operator.pinv(data)), data)
        bound = 1e-5 if exact else tol
        _require(operator, residual <= bound, f"A A^+ A x is not A x: {residual:.1e}, pinv_kind {operator.pinv_kind!r}")
        error = _relative(operator(operator.project(draw.image(), data)), data)
        _require(operator, error <= 10 * bound, f"project() leaves a residual of {error:.1e}")
    if exact:
        image = operator.pinv(y)
        error = _relative(operator.pinv(operator(image)), image)
        _require(operator, error <= 1e-5, f"A^+ A A^+ y is not A^+ y ({error:.1e}): pinv_kind is not exact")
        symmetric = (inner(operator(operator.pinv(y)), data) - inner(y, operator(operator.pinv(data)))).abs()
        hermitian = bool((symmetric <= 1e-4 * inner(y, y)).all())
        _require(operator, hermitian, "A A^+ is not Hermitian: not the pseudo-inverse")
    z = operator.proximal(x, y, 0.7, max_iter=500, tol=1e-7)
    gradient = 0.7 * operator.adjoint(operator(z) - y) + (z - x)
    error = float(gradient.norm() / (operator.adjoint(y).norm() + x.norm()))
    _require(operator, error <= 1e-4, f"proximal is not a stationary point: {error:.1e}")


def _rebuild(operator: LinearOperator, seed: int) -> None:
    x = _Draw(operator, seed).image()
    expected = operator(x)
    copies: dict[str, Callable[[], LinearOperator]] = {
        "config()": lambda: operator_from_config(operator.config(), operator.tensors()),
        "pickle": lambda: pickle.loads(pickle.dumps(operator)),  # noqa: S301 (our own bytes)
        "deepcopy": lambda: copy.deepcopy(operator),
        ".to(device)": lambda: copy.deepcopy(operator).to(operator.device),
    }
    for name, rebuild in copies.items():
        _require(operator, _relative(rebuild()(x), expected) <= 1e-5, f"differs after {name}")


def _errors(operator: LinearOperator, seed: int) -> None:
    draw = _Draw(operator, seed)
    x, y = draw.image(), draw.data()
    wrong = [x[..., :-1], x[0], x.to(torch.int32) if not x.is_complex() else x.real]
    for bad in wrong:
        try:
            operator(bad)
        except OperatorError as error:
            _require(operator, type(operator).__name__ in str(error), f"an error does not name the class: {error}")
        else:
            raise AssertionError(f"{type(operator).__name__}: accepts an image {tuple(bad.shape)} {bad.dtype}")
    with torch.autocast(device_type=x.device.type, dtype=torch.bfloat16):
        _require(operator, _relative(operator(x), operator.forward(x)) == 0, "forward differs from call")
        inside = operator.adjoint(y)
    _require(operator, _relative(inside, operator.adjoint(y)) <= 1e-6, "autocast reaches the hooks")
