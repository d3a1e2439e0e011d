"""Total variation."""

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress
from medrecon.optimization.proximal_gradient import strength
from medrecon.optimization.total_variation import total_variation
from medrecon.reconstructors.base import Reconstructor, Setting
from medrecon.reconstructors.parameters import count, number, switch
from medrecon.reconstructors.registry import register_method


@register_method("tv")
class TotalVariation(Reconstructor):
    """Compressed sensing with total variation: piecewise smooth images (good for phantoms, CT, strong noise).

    Minimises ½‖A x - y‖² + λ s ‖A‖² TV(x) (Rudin, Osher and Fatemi, Physica D 60:259, 1992; Lustig et
    al., Magn. Reson. Med. 58:1182, 2007) by accelerated proximal gradient descent. TV is isotropic,
    takes complex images as such and every channel or map set for itself; s is the sample's intensity
    scale (:mod:`medrecon.operators.scaling`), so λ has no unit.

    Parameters
    ----------
    regularization
        λ: more is smoother. None is 0.003, and 0.0005 for X-ray transforms and whatever else has no
        pseudo-inverse but an approximation.
    max_iter
        Iterations at most; over the first of them the strength falls from 0.1 or more to λ. None is 50, and 100 for
        those: they integrate, and what they smooth away comes back slowly.
    tol
        Stop after that when the relative change of the image falls to this.
    nonnegative
        Only images >= 0, for real operators.
    """

    def __init__(
        self,
        regularization: float | None = None,
        max_iter: int | None = None,
        tol: float = 1e-3,
        nonnegative: bool = False,
    ) -> None:
        super().__init__()
        self.regularization = None if regularization is None else number("tv", "regularization", regularization)
        self.max_iter = None if max_iter is None else count("tv", "max_iter", max_iter)
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
        return total_variation(
            measurements,
            operator,
            weight=self.regularization,
            max_iter=self.max_iter,
            tol=self.tol,
            nonnegative=self.nonnegative,
            progress=progress,
        )

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:
        """Return the parameters, with λ and the iterations that were left open."""
        weight, iterations = strength(operator, self.regularization, self.max_iter)
        return {**self.config(), "regularization": weight, "max_iter": iterations}
