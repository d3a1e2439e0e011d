"""Linear solvers on batches: conjugate gradients, the shifted normal equations, the operator norm."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from medrecon.operators.autograd import LinearMap


class CGResult(NamedTuple):
    """Outcome of :func:`conjugate_gradient`: solution, and per sample the iterations and ‖residual‖ / ‖b‖."""

    solution: Tensor
    iterations: Tensor
    residual: Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Real inner product Re<a, b> of each sample of a batch, shape (B,)."""
    product = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product.real if product.is_complex() else product


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) or (1,) values so that they broadcast over the samples of ``like`` (B, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def conjugate_gradient(
    system: LinearMap, b: Tensor, *, initial: Tensor | None = None, max_iter: int = 50, tol: float = 1e-6
) -> CGResult:
    """Solve ``system(x) = b`` for a Hermitian positive semi-definite map, all samples side by side.

    Samples stop one by one: at ‖b - system(x)‖ <= tol ‖b‖, at a direction without curvature, or
    after ``max_iter`` iterations; the result of a sample does not depend on its neighbours. From a
    zero start, and with b in the range, the limit is the minimum-norm solution.

    Parameters
    ----------
    system
        The map, (B, ...) to (B, ...).
    b
        Right-hand sides (B, ...), real or complex.
    initial
        Where to start; zero by default.
    max_iter, tol
        When to stop.
    """
    x = torch.zeros_like(b) if initial is None else initial.clone()
    r = b.clone() if initial is None else b - system(x)
    p = r.clone()
    energy = inner(r, r)
    floor = (tol**2) * inner(b, b)
    iterations = torch.zeros(b.shape[0], dtype=torch.long, device=b.device)
    active = energy > floor
    for _ in range(max_iter):
        if not bool(active.any()):
            break
        q = system(p)
        curvature = inner(p, q)
        active = active & (curvature > 0)
        step = torch.where(active, energy / torch.where(active, curvature, 1), 0)
        x = torch.addcmul(x, per_sample(step, x), p)
        r = torch.addcmul(r, per_sample(-step, r), q)
        new = inner(r, r)
        p = torch.addcmul(r, per_sample(torch.where(active, new / torch.where(active, energy, 1), 0), r), p)
        energy = torch.where(active, new, energy)
        iterations = iterations + active
        active = active & (energy > floor)
    norm = inner(b, b).clamp_min(torch.finfo(energy.dtype).tiny)
    return CGResult(x, iterations, (energy / norm).sqrt())


class NormalSolve(torch.autograd.Function):
    """Solve (w G + s) z = b by conjugate gradients, differentiated implicitly.

    With u = (w G + s)^-1 g the gradients are u for b, -Re<u, G z> for w and -Re<u, z> for s: one more
    solve, no memory of the iterations. G = A^H A is given as a differentiable linear map.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        b: Tensor,
        weight: Tensor,
        shift: Tensor,
        gram: LinearMap,
        max_iter: int,
        tol: float,
    ) -> Tensor:
        """Return the solution z, shape of b."""
        w, s = per_sample(weight, b), per_sample(shift, b)
        z = conjugate_gradient(lambda p: w * gram(p) + s * p, b, max_iter=max_iter, tol=tol).solution
        ctx.save_for_backward(z, weight, shift)
        ctx.options = (gram, max_iter, tol)
        return z

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Solve the same (self-adjoint) system for the incoming gradient."""
        z, weight, shift = ctx.saved_tensors
        gram, max_iter, tol = ctx.options
        u = NormalSolve.apply(grad_outputs[0], weight, shift, gram, max_iter, tol)
        grad_weight = (-inner(u, gram(z))).sum_to_size(weight.shape) if ctx.needs_input_grad[1] else None
        grad_shift = (-inner(u, z)).sum_to_size(shift.shape) if ctx.needs_input_grad[2] else None
        return u, grad_weight, grad_shift, None, None, None


def solve_normal(
    gram: LinearMap,
    b: Tensor,
    *,
    weight: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    max_iter: int = 50,
    tol: float = 1e-6,
) -> Tensor:
    """Solve (weight G + shift) z = b; differentiable in b, ``weight`` and ``shift`` (scalars or (B,))."""
    w, s = (torch.as_tensor(value, dtype=b.real.dtype, device=b.device).reshape(-1) for value in (weight, shift))
    return NormalSolve.apply(b, w, s, gram, max_iter, tol)


def chebyshev(system: LinearMap, b: Tensor, low: Tensor, high: Tensor, iterations: int) -> Tensor:
    """Solve ``system(x) = b`` for a Hermitian map with eigenvalues in [low, high], from zero, by a fixed polynomial.

    As fast as conjugate gradients in the worst case, and linear in b: a perturbation of b is not
    amplified, the derivative is that of the iterations themselves, and no step waits for an inner
    product. The error shrinks like ((√κ - 1) / (√κ + 1))^iterations with κ = high / low (Saad, Iterative
    Methods for Sparse Linear Systems, 2003, algorithm 12.1).

    Parameters
    ----------
    system
        The map, (B, ...) to (B, ...).
    b
        Right-hand sides (B, ...), real or complex.
    low, high
        0 < low < high, shapes (1,) or (B,); may require gradients.
    iterations
        Their number.
    """
    centre, radius = (per_sample(value, b) for value in ((high + low) / 2, (high - low) / 2))
    decay = radius / centre
    ratio = 2 / decay
    x, r, d = torch.zeros_like(b), b, b / centre
    for _ in range(iterations):
        x, r = x + d, r - system(d)
        following = 1 / (ratio - decay)
        d = following * decay * d + (2 * following / radius) * r
        decay = following
    return x


def largest_eigenvalue(gram: LinearMap, start: Tensor, *, max_iter: int = 200, tol: float = 1e-5) -> Tensor:
    """Largest eigenvalue, shape (B,), of a positive semi-definite map by power iteration from ``start`` (B, ...)."""
    tiny = torch.finfo(start.dtype).tiny
    x = start
    value = torch.zeros(start.shape[0], device=start.device)
    for _ in range(max_iter):
        x = x / per_sample(inner(x, x).sqrt().clamp_min(tiny), x)
        x = gram(x)
        new = inner(x, x).sqrt()
        settled = (new - value).abs() <= tol * new
        value = new
        if bool(settled.all()):
            break
    return value
