"""The intensity scale of a sample, which makes regularisation strengths dimensionless.

With x₀ = ``operator.initial(y)``, the scale of a sample is

    s = α · Q(|x₀|),    α = argmin_a ‖A(a x₀) - y‖ = Re<x₀, A^H y> / <x₀, A^H A x₀>,

so that α x₀ is in the units of the image even where A^H is not (‖A‖ ≠ 1). Q is the energy median: half
of Σ|x₀|² sits in pixels brighter than Q. An ordinary quantile of the pixels would fall with every
row of air around the object; a maximum would follow a single hot pixel.

Scaling the data by c scales s by c; scaling the operator by c scales s by 1/c.
"""

import torch
from torch import Tensor

from medrecon.errors import NumericalError
from medrecon.operators.base import LinearOperator
from medrecon.operators.certainty import certain
from medrecon.operators.solvers import inner, per_sample

# More pixels than this do not make the quantile better. The stride through them is odd and so never
# in step with rows of even length.
_ENOUGH = 2**20


def energy_median(image: Tensor) -> Tensor:
    """Return, per sample (B,), the magnitude above which half of the energy of the pixels lies; 0 for zero images."""
    stride = image[0].numel() // _ENOUGH + 1
    magnitude = image.flatten(1)[:, :: stride | 1].abs()
    descending = magnitude.sort(dim=1, descending=True).values
    peak = descending[:, :1]
    energy = (descending / torch.where(peak > 0, peak, 1)).double().square().cumsum(1)
    position = (energy < 0.5 * energy[:, -1:]).sum(1, keepdim=True).clamp_max(descending.shape[1] - 1)
    return descending.gather(1, position)[:, 0]


def unit_peak(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return images divided by their largest magnitude, and that (B,), 1 for zero images.

    Squares of raw data as small as 1e-20 would vanish in single precision.
    """
    peak = image.abs().flatten(1).amax(1)
    if certain(~torch.isfinite(peak).all()):
        bad = [index for index, value in enumerate(peak.tolist()) if not value < float("inf")]
        raise NumericalError(
            f"NaN or Inf in the measurements of sample(s) {bad}, or in their adjoint: reconstruction needs finite "
            "data (the option --nonfinite zero replaces such samples)"
        )
    peak = torch.where(peak > 0, peak, 1)
    return image / per_sample(peak, image), peak


def data_fit(initial: Tensor, backprojected: Tensor, gram_of_initial: Tensor) -> Tensor:
    """Return α, shape (B,): the factor that makes ``initial`` explain the data best; 1 where none does."""
    gain = inner(initial, backprojected)
    energy = inner(initial, gram_of_initial)
    usable = (energy > 0) & (gain > 0)
    return torch.where(usable, gain / torch.where(usable, energy, 1), 1)


def intensity_scale(operator: LinearOperator, measurements: Tensor) -> Tensor:
    """Return the intensity scale s > 0 of every sample, shape (B,); 1 where the measurements are zero.

    Parameters
    ----------
    operator
        The forward operator.
    measurements
        (B, *operator.data_shape).

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import Inpainting
    >>> intensity_scale(Inpainting(torch.ones(1, 4, 4, dtype=torch.bool)), torch.full((1, 1, 4, 4), 7.0))
    tensor([7.])
    """
    backprojected, unit = unit_peak(operator.adjoint(measurements))
    initial, _ = unit_peak(operator.initial(measurements))
    scale = data_fit(initial, backprojected, operator.gram(initial)) * energy_median(initial)
    return torch.where(scale > 0, scale * unit, 1)
