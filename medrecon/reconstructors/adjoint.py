"""The adjoint: where every other method starts."""

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import unit_peak
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.registry import register_method


@register_method("adjoint")
class Adjoint(Reconstructor):
    """Zero-filled reconstruction: the adjoint, or what the operator starts from (no regularisation).

    x = ``operator.initial(y)``, A^H y unless the operator knows better (filtered back-projection).

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import Inpainting
    >>> operator = Inpainting(torch.tensor([[[True, False]]]))
    >>> Adjoint()(torch.tensor([[[[3.0, 0.0]]]]), operator)
    tensor([[[[3., 0.]]]])
    """

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,
    ) -> Tensor:
        image = operator.initial(measurements)
        unit_peak(image)  # raises for NaN and Inf
        if progress is not None:
            progress(1, 1)
        return image
