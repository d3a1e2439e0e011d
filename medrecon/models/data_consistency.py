r"""Data consistency: draw an image towards the measurements, whatever the operator.

All variants are steps of one form. With :math:`0 < λ ≤ ∞` the weight of the data,

.. math:: \operatorname{argmin}_z \tfrac{λ}{2} ‖A z - y‖² + \tfrac12 ‖z - x‖²

is x - A⁺(A x - y) for λ = ∞ (the range-null-space step of IDM and of DDNM; equation 4 in docs/idm.md), and
x - λ/(1+λ) · A⁺(A x - y) for finite λ where A A^H = I.
"""

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.solvers import chebyshev, inner, per_sample

FIRM = 100.0
"""The λ that stands for ∞ where A⁺ has no closed form, and singular values near 0 must not be divided by."""


def data_consistency(
    x: Tensor, y: Tensor, operator: LinearOperator, weight: Tensor | None = None, *, iterations: int = 10
) -> Tensor:
    """Return x drawn towards those images that explain y.

    ========================  =====================================================================
    operator                  step
    ========================  =====================================================================
    ``pinv_kind`` "exact"     x - λ/(1+λ) A⁺(A x - y); the projection for λ = ∞
    exact adjoint             the minimiser above, by a fixed number of Chebyshev iterations from x
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
        Of :func:`~medrecon.operators.solvers.chebyshev`. Conjugate gradients would need fewer, but
        they amplify rounding errors: recomputed gradients then differ in the third digit.
    """
    if operator.pinv_kind == "exact":
        step = operator.pinv(operator(x) - y)
    elif not operator.adjoint_matched:
        step = operator.adjoint(operator(x) - y)
    else:
        firm = x.real.new_full((1,), FIRM) if weight is None else weight
        step = operator.adjoint(y - operator(x))
        strength = per_sample(firm, step)
        one = torch.ones_like(firm)
        return x + chebyshev(lambda d: d + strength * operator.gram(d), strength * step, one, one + firm, iterations)
    return x - step if weight is None else x - per_sample(weight / (1 + weight), step) * step


def unexplained(y: Tensor, operator: LinearOperator, start: Tensor, *, iterations: int = 10) -> Tensor:
    """Return the share of the measurements that no image explains, ‖A z - y‖² / ‖y‖², (B,).

    z is ``start`` drawn to the data for λ = ∞. What is left is noise, and errors of the operator such as those of coil
    sensitivity maps, as far as samples outnumber the pixels that they see: at the centre of k-space with several coils.

    Parameters
    ----------
    y
        Measurements (B, *operator.data_shape).
    operator
        With ‖A‖ <= 1.
    start
        Images (B, *operator.image_shape).
    iterations
        See :func:`data_consistency`.
    """
    nearest = data_consistency(start, y, operator, iterations=iterations)
    rest = operator(nearest) - y
    return inner(rest, rest) / inner(y, y).clamp_min(torch.finfo(y.dtype).tiny)
