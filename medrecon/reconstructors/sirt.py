"""The simultaneous iterative reconstruction technique."""

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import unit_peak
from medrecon.operators.solvers import per_sample
from medrecon.optimization.convergence import Convergence, Progress
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.parameters import count, number, switch
from medrecon.reconstructors.registry import register_method

_NO_WEIGHT = 1e-6
# X-ray transforms, whose interpolation has small negative lobes, stay below 0.02; mixed signs exceed 1.
_MOST_NEGATIVE = 0.25


@register_method("sirt")
class Sirt(Reconstructor):
    r"""Simultaneous iterative reconstruction technique (CT): smooth images from few or noisy views.

    x ← x + C A^T R (y - A x) from zero, with R and C the inverses of the row sums A 1 and column sums A^T 1
    (Gilbert, J. Theor. Biol. 36:105, 1972; Gregor and Benson, IEEE Trans. Med. Imaging 27:918, 2008). It
    converges to a least-squares solution weighted by R; stopping early is its regularisation. For real
    operators with entries >= 0, but for small ones; others are refused, their sums say nothing about their size.

    Parameters
    ----------
    max_iter
        Iterations.
    nonnegative
        Set negative values to 0 in every iteration.
    tol
        Stop at a relative change of the image this small.
    """

    def __init__(self, max_iter: int = 200, nonnegative: bool = True, tol: float = 1e-5) -> None:
        super().__init__()
        self.max_iter = count("sirt", "max_iter", max_iter)
        self.nonnegative = switch("sirt", "nonnegative", nonnegative)
        self.tol = number("sirt", "tol", tol, below=1)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,
    ) -> Tensor:
        if operator.image_dtype.is_complex or operator.data_dtype.is_complex:
            raise OperatorError(f"sirt: is for real operators, {type(operator).__name__} is complex; use cgls or tv")
        y = measurements.to(operator.data_dtype if measurements.dtype != torch.float64 else torch.float64)
        y, unit = unit_peak(y)
        batch = operator.batch_size
        sums = operator(y.new_ones(batch, *operator.image_shape))
        _refuse_mixed_signs(operator, sums)
        rows = _inverse(sums)
        columns = _inverse(operator.adjoint(y.new_ones(batch, *operator.data_shape)))
        x = y.new_zeros(y.shape[0], *operator.image_shape)
        convergence: Convergence | None = None
        for iteration in range(self.max_iter):
            new = torch.addcmul(x, columns, operator.adjoint(rows * (y - operator(x))))
            if self.nonnegative:
                new = new.clamp_min_(0)
            # the size of the first iterate is what a runaway is measured by; it starts from zero
            convergence = Convergence("sirt", self.tol, new) if convergence is None else convergence
            done = convergence.update(new, new - x, iteration + 1, may_stop=iteration > 0)
            x = new
            if progress is not None:
                progress(iteration + 1, self.max_iter)
            if done:
                break
        result = x if convergence is None else convergence.result(x)
        return result * per_sample(unit, x)


def _inverse(sums: Tensor) -> Tensor:
    """Return 1 / sums, and 0 for what no ray touches (or only by rounding), sample by sample."""
    touched = sums > per_sample(_NO_WEIGHT * sums.flatten(1).amax(1), sums)
    return torch.where(touched, 1 / torch.where(touched, sums, 1), 0)


def _refuse_mixed_signs(operator: LinearOperator, sums: Tensor) -> None:
    """Raise unless |A s| <= A 1 for random signs s, as it is where A >= 0, up to small negative entries."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (1, *operator.image_shape), generator=generator).to(sums) * 2 - 1
    size = operator(signs.expand(sums.shape[0], *operator.image_shape)).abs()
    excess = (size - sums).clamp_min(0).square().flatten(1).sum(1)
    if bool((excess > _MOST_NEGATIVE * size.square().flatten(1).sum(1)).any()):
        raise OperatorError(
            f"sirt: is for operators with entries >= 0, those of {type(operator).__name__} have both signs or are "
            "negative; use cgls or tv"
        )
