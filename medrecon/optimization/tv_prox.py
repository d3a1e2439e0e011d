"""The proximal map of isotropic total variation, by accelerated dual ascent that remembers its dual."""

import torch
from torch import Tensor

from medrecon.optimization.proximal_gradient import over_magnitude


class TotalVariationProx:
    """prox of λ Σ_pixels (Σ_axes |x[n + e_a] - x[n]|²)^½ on planes (B, 1 or 2, C, *spatial).

    The dual problem, one vector of finite differences a pixel in a ball of radius λ, is ascended by a
    few steps of FISTA (Beck and Teboulle, IEEE Trans. Image Process. 18:2419, 2009). Along a sequence
    of similar arguments, as a proximal gradient method produces, the dual of the last call is so good
    a start that few suffice; their errors add up under momentum, though, so there are more of them
    the longer it goes on (Schmidt, Le Roux and Bach, NeurIPS 2011).

    Differences end at the border (Neumann): opposite borders of an image have nothing to do with each
    other unless the operator is a Fourier transform, and an MR image is dark there.

    Parameters
    ----------
    like
        Planes whose shape, dtype and device all arguments will have.
    nonnegative
        Add the constraint x >= 0, which enters the dual ascent as a projection of the primal point (section
        IV-B of the paper).
    """

    # inner steps in outer iteration k: first + k // slower, but not more than most
    _FIRST, _SLOWER, _MOST = 2, 5, 40

    def __init__(self, like: Tensor, *, nonnegative: bool = False) -> None:
        self._nonnegative = nonnegative
        self._axes = [axis for axis in range(3, like.ndim) if like.shape[axis] > 1]
        # ‖D‖² <= 4 an axis
        self._step = 1 / (4 * max(len(self._axes), 1))
        self._dual = like.new_zeros((len(self._axes), *like.shape))
        self._trial = torch.zeros_like(self._dual)

    def __call__(self, v: Tensor, iteration: int, weight: Tensor) -> Tensor:
        """Return the proximal point of v for λ = ``weight``, (B,); v is left as it is."""
        if not bool(weight.any()) or not self._axes:
            return v.clamp_min(0) if self._nonnegative else v
        t = 1.0
        point = torch.empty_like(v)
        self._trial.copy_(self._dual)
        for _ in range(min(self._FIRST + iteration // self._SLOWER, self._MOST)):
            self._primal(v, self._trial, point)
            for index, axis in enumerate(self._axes):
                inside = self._trial[index].narrow(axis, 0, v.shape[axis] - 1)
                inside.add_(point.narrow(axis, 1, v.shape[axis] - 1), alpha=self._step)
                inside.sub_(point.narrow(axis, 0, v.shape[axis] - 1), alpha=self._step)
            self._project(self._trial, weight)
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            # the old dual becomes the next trial: new + (t - 1) / t' (new - old)
            self._dual.lerp_(self._trial, 1 + (t - 1) / following)
            self._dual, self._trial = self._trial, self._dual
            t = following
        return self._primal(v, self._dual, point)

    def _primal(self, v: Tensor, dual: Tensor, out: Tensor) -> Tensor:
        """Return v - D^T dual; the dual is zero where an axis ends."""
        torch.add(v, dual[0], out=out)
        for index in range(1, len(self._axes)):
            out.add_(dual[index])
        for index, axis in enumerate(self._axes):
            out.narrow(axis, 1, v.shape[axis] - 1).sub_(dual[index].narrow(axis, 0, v.shape[axis] - 1))
        return out.clamp_min_(0) if self._nonnegative else out

    def _project(self, dual: Tensor, weight: Tensor) -> None:
        """Shorten the vector of every pixel to λ, in place."""
        dual.mul_(over_magnitude([plane for axis in dual for plane in axis.unbind(1)], weight)[:, None])
