"""The image of least total variation that explains measurements."""

from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress
from medrecon.optimization.proximal_gradient import DataTerm, ProximalGradient
from medrecon.optimization.tv_prox import TotalVariationProx

_DEFAULTS = {False: (0.003, 50), True: (0.001, 100)}  # λ and iterations, by whether the pseudo-inverse is approximate


def total_variation(
    measurements: Tensor,
    operator: LinearOperator,
    *,
    weight: float,
    max_iter: int,
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
        λ, without a unit: s is the intensity scale of the sample.
    max_iter, tol
        Iterations at most; relative change at which to stop.
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
    data = DataTerm(operator, measurements)
    prox = TotalVariationProx(data.start, nonnegative=nonnegative)
    return ProximalGradient(name, weight, max_iter, tol).minimize(data, prox, progress)


def usual_strength(operator: LinearOperator) -> tuple[float, int]:
    """Return λ and the iterations that suit an operator where nobody says.

    Where the pseudo-inverse is an approximation the operator integrates, and what is smoothed away comes back slowly.
    """
    return _DEFAULTS[operator.pinv_kind == "approximate"]
