"""Total variation."""

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.reconstructors.base import Progress, Reconstructor
from medrecon.reconstructors.parameters import count, number, switch
from medrecon.reconstructors.proximal_gradient import DataTerm, ProximalGradient
from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.tv_prox import TotalVariationProx


@register_method("tv")
class TotalVariation(Reconstructor):
    """Compressed sensing with total variation: piecewise smooth images (good for phantoms, CT, strong noise).

    Minimises ½‖A x - y‖² + λ s ‖A‖² TV(x) (Rudin, Osher and Fatemi, Physica D 60:259, 1992; Lustig et
    al., Magn. Reson. Med. 58:1182, 2007) by accelerated proximal gradient descent. TV is isotropic,
    takes complex images as such and every channel or map set for itself; s is the sample's intensity
    scale (:mod:`medrecon.reconstructors.scaling`), so λ has no unit.

    Parameters
    ----------
    regularization
        λ: more is smoother.
    max_iter
        Iterations at most; over the first of them the strength falls from 0.1 to λ.
    tol
        Stop after that when the relative change of the image falls to this.
    nonnegative
        Only images >= 0, for real operators.
    """

    def __init__(
        self, regularization: float = 0.003, max_iter: int = 50, tol: float = 1e-3, nonnegative: bool = False
    ) -> None:
        super().__init__()
        self.regularization = number("tv", "regularization", regularization)
        self.max_iter = count("tv", "max_iter", max_iter)
        self.tol = number("tv", "tol", tol, below=1)
        self.nonnegative = switch("tv", "nonnegative", nonnegative)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,
    ) -> Tensor:
        if self.nonnegative and operator.image_dtype.is_complex:
            raise UsageError(
                f"tv: nonnegative is for real images, those of {type(operator).__name__} are complex; leave it out"
            )
        data = DataTerm(operator, measurements)
        prox = TotalVariationProx(data.start, nonnegative=self.nonnegative)
        return ProximalGradient("tv", self.regularization, self.max_iter, self.tol).minimize(data, prox, progress)
