"""Accelerated proximal gradient descent on ½‖A x - y‖² + R(x), for any operator.

Everything here works on *planes*: complex images (B, C, *spatial) as real tensors
(B, 2, C, *spatial), real ones as (B, 1, C, *spatial). Plain contiguous real arithmetic is what a
processor does fastest, and complex multiplication by real numbers is not that.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import data_fit, energy_median, unit_peak
from medrecon.operators.solvers import per_sample
from medrecon.optimization.convergence import Convergence, Progress

Prox = Callable[[Tensor, int, Tensor], Tensor]
"""Map (planes, iteration, λ of each sample) to the proximal point; may overwrite the planes it is given."""

# Where λ starts at least, by what factor it falls in each iteration, and the share of the iterations that may take.
_FIRST_WEIGHT = 0.1
_FALL = 0.9
_FALLING = 0.6
_USUAL = {False: (0.003, 50), True: (0.0005, 100)}  # λ and iterations, by whether the pseudo-inverse is approximate


def to_planes(x: Tensor) -> Tensor:
    """Return images (B, C, *spatial) as real planes (B, 1 or 2, C, *spatial)."""
    return torch.stack((x.real, x.imag), dim=1) if x.is_complex() else x[:, None]


def from_planes(planes: Tensor) -> Tensor:
    """Return planes (B, 1 or 2, C, *spatial) as real or complex images: the inverse of :func:`to_planes`."""
    return torch.complex(planes[:, 0], planes[:, 1]) if planes.shape[1] == 2 else planes[:, 0].contiguous()


def over_magnitude(parts: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Return λ / max(|c|, λ) for vectors c, whose parts are tensors (B, …), and λ = ``weight``, (B,)."""
    energy = parts[0].square()
    for part in parts[1:]:
        energy.addcmul_(part, part)
    weight = per_sample(weight, energy)
    floor = weight.square().clamp_min(torch.finfo(energy.dtype).tiny)
    return energy.clamp_min_(floor).rsqrt_().mul_(weight)  # torch's sqrt is ten times slower


class DataTerm:
    """½‖A x - y‖² with the data in units of the intensity scale s and the operator in units of ‖A‖.

    Where measurements differ in noise they are weighted, see :meth:`~medrecon.operators.LinearOperator.whitened`;
    A and y here are the weighted ones. Regularisation strengths are therefore plain numbers: R(x) = λ ‖…x‖₁ here
    stands for λ s ‖A‖² ‖…x‖₁ in the units of the data.

    Attributes
    ----------
    start
        α x₀ / s, as planes: where to begin (see :mod:`medrecon.operators.scaling`).
    """

    def __init__(self, operator: LinearOperator, measurements: Tensor) -> None:
        measurements, operator = operator.whitened(measurements)
        backprojected, unit = unit_peak(operator.adjoint(measurements))
        initial = backprojected
        if type(operator).initial is not LinearOperator.initial:
            initial, _ = unit_peak(operator.initial(measurements))
        fit = data_fit(initial, backprojected, operator.gram(initial))
        scale = fit * energy_median(initial)
        scale = torch.where(scale > 0, scale, 1)
        bound = operator.norm_bound().to(scale) ** 2
        self._operator = operator
        self._scale = scale * unit
        self._step = 1 / torch.where(bound > 0, bound, 1)
        self.start = to_planes(initial * per_sample(fit / scale, initial))
        self._pull = to_planes(backprojected * per_sample(self._step / scale, backprojected))
        self._push = -per_sample(self._step, self._pull)

    def descend(self, z: Tensor) -> Tensor:
        """Return z - (A^H A z - A^H y) / ‖A‖², a new tensor."""
        slope = to_planes(self._operator.gram(from_planes(z)))
        return torch.addcmul(self._pull, slope, self._push).add_(z)

    def image(self, x: Tensor) -> Tensor:
        """Return planes as images in the units of the data."""
        image = from_planes(x)
        return image * per_sample(self._scale, image)


class PaddedDataTerm(DataTerm):
    """The same for images on a larger grid, of which the operator sees the first pixels along every axis.

    With the crop C, A C has the norm of A, so nothing changes but the number of unknowns: the padded
    ones answer to the regularisation only. That keeps a proximal map that wants a certain size exact.
    """

    def __init__(self, operator: LinearOperator, measurements: Tensor, grid: tuple[int, ...]) -> None:
        super().__init__(operator, measurements)
        self._sizes = tuple(self.start.shape[3:])
        self._padded = grid != self._sizes
        for axis, (size, target) in enumerate(zip(self._sizes, grid, strict=True), start=3):
            if target != size:
                # an image on a circle, as Fourier transform and wavelets take it
                index = torch.arange(target, device=self.start.device) % size
                self.start = self.start.index_select(axis, index)

    def descend(self, z: Tensor) -> Tensor:
        """Return z after the gradient step, which leaves the padded pixels alone."""
        if not self._padded:
            return super().descend(z)
        result = z.clone()
        self._seen(result).copy_(super().descend(self._seen(z)))
        return result

    def image(self, x: Tensor) -> Tensor:
        """Return the images that the operator sees."""
        return super().image(self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        """Return the pixels that the operator sees, a view."""
        for axis, size in enumerate(self._sizes, start=3):
            x = x.narrow(axis, 0, size)
        return x


class Continuation:
    """The weight of each sample falls by a tenth in each iteration until it is λ, over 60 % of the iterations at most.

    Where the operator leaves many images indistinguishable, a small λ from the start moves the image so little in each
    iteration that it looks converged when it has hardly begun (Hale, Yin and Zhang, SIAM J. Optim. 19:1107, 2008).

    Parameters
    ----------
    first
        Where the weight starts, (B,).
    last
        λ.
    max_iter
        Iterations at most.
    """

    def __init__(self, first: Tensor, last: float, max_iter: int) -> None:
        self._last = last
        self._ratio = (first / last).clamp_min(1) if last > 0 else torch.ones_like(first)
        self._steps = (self._ratio.log() / -math.log(_FALL)).clamp_max(_FALLING * max_iter).round()

    def weight(self, iteration: int) -> Tensor:
        """Return λ_k of an iteration, counted from 0, (B,)."""
        left = torch.where(self.over(iteration), 0, 1 - iteration / self._steps)
        return self._last * self._ratio**left

    def over(self, iteration: int) -> Tensor:
        """Return for which samples the weight has come down to λ, bool (B,)."""
        return iteration >= self._steps


class ProximalGradient:
    """FISTA (Beck and Teboulle, SIAM J. Imaging Sci. 2:183, 2009) with continuation, all samples side by side.

    The weight starts at 0.1, or at the mean difference of neighbouring pixels of the start where that is larger: an
    operator that scatters leaves a start like noise, see :class:`Continuation`.

    Parameters
    ----------
    name
        Of the method, for messages.
    regularization
        λ.
    max_iter, tol
        Iterations at most; relative change at which to stop, once the weight has come down to λ.
    """

    def __init__(self, name: str, regularization: float, max_iter: int, tol: float) -> None:
        self._name = name
        self._regularization = regularization
        self._max_iter = max_iter
        self._tol = tol

    def minimize(self, data: DataTerm, prox: Prox, progress: Progress | None) -> Tensor:
        """Return the images, in the units of the data."""
        x = z = data.start
        convergence = Convergence(self._name, self._tol, x)
        continuation = Continuation(roughness(x).clamp_min(_FIRST_WEIGHT), self._regularization, self._max_iter)
        t = 1.0
        for iteration in range(self._max_iter):
            new = prox(data.descend(z), iteration, continuation.weight(iteration))
            change = new - x
            x = new
            if progress is not None:
                progress(iteration + 1, self._max_iter)
            if convergence.update(x, change, iteration + 1, may_stop=continuation.over(iteration)):
                break
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            z = torch.add(x, change, alpha=(t - 1) / following)
            t = following
        return data.image(convergence.result(x))


def roughness(planes: Tensor) -> Tensor:
    """Return the mean magnitude of the differences of neighbouring pixels, (B,), summed over the axes."""
    total = planes.new_zeros(planes.shape[0])
    for axis in range(3, planes.ndim):
        if planes.shape[axis] > 1:
            total += torch.linalg.vector_norm(planes.diff(dim=axis), dim=1).flatten(1).mean(1)
    return total


def strength(operator: LinearOperator, weight: float | None, max_iter: int | None) -> tuple[float, int]:
    """Return λ and the iterations, for None those that usually suit the operator.

    Where the pseudo-inverse is an approximation the operator integrates, and what is smoothed away comes back slowly.
    """
    usual_weight, usual_iterations = _USUAL[operator.pinv_kind == "approximate"]
    return usual_weight if weight is None else weight, usual_iterations if max_iter is None else max_iter
