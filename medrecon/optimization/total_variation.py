"""The image of least total variation that explains measurements."""

from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress
from medrecon.optimization.proximal_gradient import DataTerm, ProximalGradient, strength
from medrecon.optimization.tv_prox import TotalVariationProx


def total_variation(
    measurements: Tensor,
    operator: LinearOperator,
    *,
    weight: float | None = None,
    max_iter: int | None = None,
    tol: float = 1e-3,
    nonnegative: bool = False,
    name: str = "tv",
    progress: Progress | None = None,
) -> Tensor:
    """Return argmin_x ½‖A x - y‖² + λ s ‖A‖² TV(x), see :class:`medrecon.reconstructors.tv.TotalVariation`.

    Parameters
    ----------
    measurements
        (B, *operator.data_shape).
    operator
        A.
    weight
        λ, without a unit: s is the intensity scale of the sample. None takes the usual one.
    max_iter, tol
        Iterations at most, None for the usual ones; relative change at which to stop.
    nonnegative
        Only images >= 0, for real operators.
    name
        Of the method, for messages.
    progress
        Called after each iteration.

    Returns
    -------
    Tensor
        (B, *operator.image_shape), in the units of the data.
    """
    weight, max_iter = strength(operator, weight, max_iter)
    data = DataTerm(operator, measurements)
    prox = TotalVariationProx(data.start, nonnegative=nonnegative)
    return ProximalGradient(name, weight, max_iter, tol).minimize(data, prox, progress)
