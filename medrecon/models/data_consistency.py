r"""Data consistency: draw an image towards the measurements, whatever the operator.

All variants are steps of one form. With :math:`0 < λ ≤ ∞` the weight of the data,

.. math:: \operatorname{argmin}_z \tfrac{λ}{2} ‖A z - y‖² + \tfrac12 ‖z - x‖²

is x - A⁺(A x - y) for λ = ∞ (the range-null-space step of Chen et al., IDM, eq. 6, and of DDNM), and
x - λ/(1+λ) · A⁺(A x - y) for finite λ where A A^H = I.
"""

from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.solvers import per_sample, solve_normal

FIRM = 1e3
"""The λ that stands for ∞ where A⁺ has no closed form: solved for, not divided by singular values near 0."""

_NEVER = 1e-14


def data_consistency(
    x: Tensor, y: Tensor, operator: LinearOperator, weight: Tensor | None = None, *, iterations: int = 10
) -> Tensor:
    """Return x drawn towards those images that explain y.

    ========================  =====================================================================
    operator                  step
    ========================  =====================================================================
    ``pinv_kind`` "exact"     x - λ/(1+λ) A⁺(A x - y); the projection for λ = ∞
    exact adjoint             the minimiser above, by a fixed number of conjugate gradient iterations
    approximate adjoint       x - λ/(1+λ) A^H(A x - y), a gradient step, stable for ‖A‖ <= 1
    ========================  =====================================================================

    Filtered back-projection is no pseudo-inverse: x - FBP(A x - y) is not a projection and diverges.

    Parameters
    ----------
    x
        Images (B, *operator.image_shape).
    y
        Measurements (B, *operator.data_shape).
    operator
        With ‖A‖ <= 1, as from ``normalized()``.
    weight
        λ > 0, (1,) or (B,), may require gradients; None is ∞ (:data:`FIRM` where that is not possible).
    iterations
        Of the conjugate gradients: fixed, so that a recomputation takes the same steps. They start at x;
        the gradient is that of the exact solution.
    """
    if operator.pinv_kind == "exact":
        step = operator.pinv(operator(x) - y)
    elif not operator.adjoint_matched:
        step = operator.adjoint(operator(x) - y)
    else:
        firm = x.real.new_full((1,), FIRM) if weight is None else weight
        step = operator.adjoint(y - operator(x))
        right = step * per_sample(firm, step)
        return x + solve_normal(operator.gram, right, weight=firm, shift=1.0, max_iter=iterations, tol=_NEVER)
    return x - step if weight is None else x - per_sample(weight / (1 + weight), step) * step
