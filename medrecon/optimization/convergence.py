"""When to stop: per sample, and never with NaN."""

from collections.abc import Callable

import torch
from torch import Tensor

from medrecon.errors import NumericalError
from medrecon.operators.solvers import inner, per_sample

Progress = Callable[[int, int], None]
"""Called with (iterations or calls of a network done, those at most)."""

# In an iteration that converges, no iterate is this many times larger than the one it started from.
_RUNAWAY = 1e4


class Convergence:
    """Keeps the image of every sample at the iteration at which it stopped changing.

    A sample has converged when ‖x_k - x_{k-1}‖ <= tol ‖x_k‖. The iteration may go on for its
    neighbours: what it was then is what counts, so a batch gives what a loop gives.

    Parameters
    ----------
    name
        Of the method, for messages.
    tol
        Relative change.
    start
        The first iterate, (B, ...).
    """

    def __init__(self, name: str, tol: float, start: Tensor) -> None:
        self._name = name
        self._tol = tol
        self._limit = _RUNAWAY * inner(start, start).sqrt()
        self._running = torch.ones(start.shape[0], dtype=torch.bool, device=start.device)
        self._result: Tensor | None = None

    def update(self, x: Tensor, change: Tensor, iteration: int, *, may_stop: Tensor | bool = True) -> bool:
        """Note iterate number ``iteration`` and its difference from the one before; return whether all are done.

        Of samples that may not stop it only looks out for divergence.
        """
        size = inner(x, x).sqrt()
        moved = inner(change, change).sqrt()
        lost = self._running & ~(size <= self._limit)  # NaN fails every comparison
        done = self._running & (moved <= self._tol * size) & may_stop
        if not bool((lost | done).any()):
            return False
        if bool(lost.any()):
            samples = lost.nonzero().flatten().tolist()
            raise NumericalError(
                f"{self._name}: diverged in sample(s) {samples} at iteration {iteration}: the operator's adjoint or "
                "norm_bound() may be wrong (medrecon.testing.assert_linear_operator tells), or the data is extreme"
            )
        if bool(done.all()):
            self._result, self._running = x, done
            return True
        self._result = self._merged(x, done)
        self._running = self._running & ~done
        return not bool(self._running.any())

    def result(self, x: Tensor) -> Tensor:
        """Return the images: of the samples still running those of ``x``, the last iterate."""
        return x if self._result is None or self._result is x else self._merged(x, self._running)

    def _merged(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Return the result so far with the chosen samples from x."""
        return x.clone() if self._result is None else torch.where(per_sample(chosen, x), x, self._result)
