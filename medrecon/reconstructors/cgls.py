"""Conjugate gradients for least squares, stopped early."""

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import unit_peak
from medrecon.operators.solvers import inner, per_sample
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.parameters import count, number
from medrecon.reconstructors.registry import register_method


@register_method("cgls")
class Cgls(Reconstructor):
    """Conjugate gradients for least squares, regularised by stopping early (any operator).

    Minimises ‖A x - y‖ from zero by CGLS (Björck, Numerical Methods for Least Squares Problems, 1996, section
    7.4). Low frequencies come first and noise last: with noisy data 8 (few photons) to 20 iterations are best,
    with clean data more are better.

    Parameters
    ----------
    max_iter
        Iterations.
    tol
        Stop at ‖A^H (y - A x)‖ <= tol ‖A^H y‖.
    """

    def __init__(self, max_iter: int = 15, tol: float = 1e-6) -> None:
        super().__init__()
        self.max_iter = count("cgls", "max_iter", max_iter)
        self.tol = number("cgls", "tol", tol, below=1)

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
                f"cgls: conjugate gradients need the exact adjoint, that of {type(operator).__name__} is approximate; "
                "use the method sirt, tv or l1-wavelet"
            )
        residual, unit = unit_peak(measurements)
        # A stands for A / gain from here on: squares of its values might leave the range of single precision
        slope, gain = unit_peak(operator.adjoint(residual))
        residual = residual.to(slope.real.dtype if not residual.is_complex() else residual.dtype)
        x, direction, size = torch.zeros_like(slope), slope, inner(slope, slope)
        enough = self.tol**2 * size
        for iteration in range(self.max_iter):
            image = operator(direction)
            image = image / per_sample(gain, image)
            length = inner(image, image)
            # a sample that has arrived stands still: its neighbours in the batch may go on
            moving = (size > enough) & (length > 0)
            step = per_sample(torch.where(moving, size / torch.where(length > 0, length, 1), 0), x)
            x = x + step * direction
            residual = residual - per_sample(step.flatten(), residual) * image
            slope = operator.adjoint(residual)
            slope = slope / per_sample(gain, slope)
            before, size = size, torch.where(moving, inner(slope, slope), size)
            ratio = torch.where(before > 0, size / torch.where(before > 0, before, 1), 0)
            direction = slope + per_sample(ratio, x) * direction
            if progress is not None:
                progress(iteration + 1, self.max_iter)
            if not bool(moving.any()):
                break
        return x * per_sample(unit / gain, x)
