"""Least squares with an energy penalty, by conjugate gradients."""

import torch
from torch import Tensor

from medrecon.errors import NumericalError, OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import unit_peak
from medrecon.operators.solvers import conjugate_gradient, per_sample
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.parameters import count, number
from medrecon.reconstructors.registry import register_method


@register_method("cg-sense", "tikhonov")
class Tikhonov(Reconstructor):
    """Least squares with an energy penalty by conjugate gradients (CG-SENSE where the operator has coils).

    Solves (A^H A + λ) x = A^H y from zero (Pruessmann et al., Magn. Reson. Med. 46:638, 2001). λ is
    absolute, relative to the operator and not to the data: with coil maps normalised to Σ|s|² = 1 the
    largest eigenvalue of A^H A is 1.

    Parameters
    ----------
    regularization
        λ.
    max_iter
        Iterations at most; with small λ, stopping early regularises too.
    tol
        Stop at ‖residual‖ <= tol ‖A^H y‖.
    """

    def __init__(self, regularization: float = 0.01, max_iter: int = 30, tol: float = 1e-6) -> None:
        super().__init__()
        self.regularization = number("cg-sense", "regularization", regularization)
        self.max_iter = count("cg-sense", "max_iter", max_iter)
        self.tol = number("cg-sense", "tol", tol, below=1)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,
    ) -> Tensor:
        if not operator.adjoint_matched:
            raise OperatorError(
                f"cg-sense: conjugate gradients need the exact adjoint, that of {type(operator).__name__} is "
                "approximate; use the method tv or l1-wavelet"
            )
        b, unit = unit_peak(operator.adjoint(measurements))
        done = 0

        def system(p: Tensor) -> Tensor:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, self.max_iter)
            return torch.add(operator.gram(p), p, alpha=self.regularization)

        x = conjugate_gradient(system, b, max_iter=self.max_iter, tol=self.tol).solution
        if not bool(torch.isfinite(x.abs().amax())):
            raise NumericalError("cg-sense: diverged; is the operator's adjoint right?")
        return x * per_sample(unit, x)
