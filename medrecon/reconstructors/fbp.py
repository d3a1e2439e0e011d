"""Filtered back-projection."""

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.filters import WINDOWS, Window
from medrecon.operators.scaling import unit_peak
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Reconstructor
from medrecon.reconstructors.parameters import choice, switch
from medrecon.reconstructors.registry import register_method


@register_method("fbp")
class FilteredBackProjection(Reconstructor):
    """Filtered back-projection (CT): direct and fast, for densely sampled sinograms.

    Parallel beams and fans, over full turns and parts of them, in the units of the data: see
    :meth:`medrecon.operators.ct.base.XRayTransform.filtered_backprojection`.

    Parameters
    ----------
    filter
        Window of the ramp: ram-lak (none), shepp-logan, cosine, hamming or hann, from sharp to smooth.
    nonnegative
        Set negative values to 0.
    """

    def __init__(self, filter: str = "ram-lak", nonnegative: bool = False) -> None:  # noqa: A002 (the field's name for it)
        super().__init__()
        self.filter: Window = choice("fbp", "filter", filter, WINDOWS)  # type: ignore[assignment]  # one of the literals
        self.nonnegative = switch("fbp", "nonnegative", nonnegative)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,  # noqa: ARG002 (nothing random here)
        progress: Progress | None,
    ) -> Tensor:
        if not isinstance(operator, XRayTransform):
            raise UsageError(
                f"fbp is for X-ray transforms, not for {type(operator).__name__}; use the method adjoint, which starts "
                "every other"
            )
        image = operator.filtered_backprojection(measurements, window=self.filter)
        unit_peak(image)  # raises for NaN and Inf
        if progress is not None:
            progress(1, 1)
        return image.clamp_min(0) if self.nonnegative else image
