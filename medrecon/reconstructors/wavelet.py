"""Sparse wavelet coefficients."""

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress
from medrecon.optimization.proximal_gradient import PaddedDataTerm, ProximalGradient, strength
from medrecon.reconstructors.base import Reconstructor, Setting
from medrecon.reconstructors.parameters import choice, count, number, switch
from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.wavelet_prox import WaveletShrinkage
from medrecon.reconstructors.wavelet_transform import WAVELETS, WaveletTransform


@register_method("l1-wavelet")
class L1Wavelet(Reconstructor):
    """Compressed sensing with sparse wavelet coefficients (the usual choice for natural and MR images).

    Minimises ½‖A x - y‖² + λ s ‖A‖² ‖W x‖₁ (Lustig et al., Magn. Reson. Med. 58:1182, 2007) by FISTA.
    W are the detail coefficients of an orthonormal periodic wavelet transform, taken as complex numbers
    and for every channel or map set alone; s is the sample's intensity scale
    (:mod:`medrecon.operators.scaling`), so λ has no unit.

    Where a size is no multiple of 2^levels the image is solved for on the next larger grid that is. The
    operator does not see the extra pixels and the wavelets fill them as suits the image best, so the
    proximal map stays exact and every size has all its levels.

    Parameters
    ----------
    regularization
        λ: more is smoother. None is 0.003, and 0.0005 for X-ray transforms and whatever else has no
        pseudo-inverse but an approximation.
    max_iter
        Iterations at most; over the first of them the strength falls from 0.1 or more to λ. None is 50, and 100 for
        those.
    tol
        Stop after that when the relative change of the image falls to this; with cycle spinning it seldom does, the
        random shifts alone change the image by about as much as λ.
    wavelet
        "haar", "db2", "db3" or "db4".
    levels
        At most; short axes have fewer.
    cycle_spinning
        Shift the wavelets' grid at random in every iteration. Without, the objective is minimised to the
        letter and blocks show.
    """

    def __init__(
        self,
        regularization: float | None = None,
        max_iter: int | None = None,
        tol: float = 1e-3,
        wavelet: str = "db2",
        levels: int = 4,
        *,
        cycle_spinning: bool = True,
    ) -> None:
        super().__init__()
        self.regularization = None if regularization is None else number("l1-wavelet", "regularization", regularization)
        self.max_iter = None if max_iter is None else count("l1-wavelet", "max_iter", max_iter)
        self.tol = number("l1-wavelet", "tol", tol, below=1)
        self.wavelet = choice("l1-wavelet", "wavelet", wavelet, tuple(WAVELETS))
        self.levels = count("l1-wavelet", "levels", levels)
        self.cycle_spinning = switch("l1-wavelet", "cycle_spinning", cycle_spinning)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        transform = WaveletTransform(operator.image_shape[1:], self.wavelet, self.levels)
        if not self.cycle_spinning:
            generator = None
        elif generator is None:
            generator = torch.Generator().manual_seed(0)
        weight, max_iter = strength(operator, self.regularization, self.max_iter)
        data = PaddedDataTerm(operator, measurements, transform.grid)
        prox = WaveletShrinkage(transform, generator)
        return ProximalGradient("l1-wavelet", weight, max_iter, self.tol).minimize(data, prox, progress)

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:
        """Return the parameters, with λ and the iterations that were left open."""
        weight, iterations = strength(operator, self.regularization, self.max_iter)
        return {**self.config(), "regularization": weight, "max_iter": iterations}
