"""How noise differs from ray to ray, and what follows for least squares."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medrecon.operators.certainty import certain
from medrecon.operators.solvers import per_sample

MODEL_ERROR = 0.005
"""Standard deviation of what the model itself does not explain, as a fraction of the longest line integral."""

_GROUP = 64  # rays at least that a standard deviation is estimated from
_GROUPS = 128  # of such rays, at most
_FEWEST = 8  # fewer groups tell nothing
_QUIETEST = 0.9  # the object, too, makes differences: of the numbers of photons that groups imply, a large one is right
_EVEN = 0.8  # a sample with no weight below this has none: edges of the object look like so much noise
_MEDIAN = 0.6745 * 6**0.5  # of the magnitudes of second differences of white noise of standard deviation 1


def ray_weights(sinograms: Tensor) -> Tensor | None:
    r"""Return weights for least squares, estimated from the sinograms alone; None where noise is the same everywhere.

    Of :math:`n` photons the line integral :math:`p = -\ln(n / n_0)` has the variance :math:`1 / n = e^p / n_0`: rays
    through the whole body are a thousand times as noisy as those through a lung, and unweighted least squares draws
    their noise over the image as streaks (Sauer and Bouman, IEEE Trans. Signal Process. 41:534, 1993). With σ(p) the
    standard deviation of rays with line integrals like p and :math:`σ_0 = 0.005 \max |p|` for what discretisation
    does to all of them alike,

    .. math:: w = (1 + σ(p)^2 / σ_0^2)^{-1/2}.

    The number of photons need not be known: σ(p) is read off the second differences along the detector, and is what
    rays like these show, or what the quietest rays (the air beside the object, as a rule) imply by :math:`e^p`,
    whichever is less: edges of the object look like noise too, and in another unit than nepers :math:`e^p` says
    nothing. Clean air means no weights.

    Parameters
    ----------
    sinograms
        Line integrals (B, C, views, bins).

    Returns
    -------
    Tensor | None
        0 < w <= 1, like ``sinograms``.
    """
    if sinograms.shape[-1] < 3 or certain(~torch.isfinite(sinograms).all()):
        return None  # whoever uses them says what is wrong with them
    weights = torch.stack([_weights(sinogram) for sinogram in sinograms])
    even = (weights > _EVEN).flatten(1).all(1)
    return None if certain(even.all()) else torch.where(per_sample(even, weights), 1, weights)


def white_noise(differences: Tensor) -> Tensor:
    """Return the standard deviation of white noise, from the magnitudes of its second differences along the last axis.

    A median: what a smooth object with few edges adds to some of them counts little.
    """
    return differences.median(-1).values / _MEDIAN


def _weights(sinogram: Tensor) -> Tensor:
    """Return the weights of one sinogram (C, views, bins)."""
    peak = sinogram.abs().amax()
    peak = torch.where(peak > 0, peak, 1)
    rows = sinogram.flatten(0, -2)[None]
    integrals = F.avg_pool1d(F.pad(rows, (1, 1), mode="replicate"), 3, 1)  # its own noise must not weigh a ray
    differences = rows.diff(n=2, dim=-1).abs().flatten()
    deviation = _deviation(integrals.flatten(), integrals[..., 1:-1].flatten(), differences)
    return (1 + (deviation / (MODEL_ERROR * peak)).square()).rsqrt().view(sinogram.shape)


def _deviation(p: Tensor, integrals: Tensor, differences: Tensor) -> Tensor:
    """Return σ(p), from line integrals and the magnitudes of the second differences there."""
    groups = min(_GROUPS, integrals.numel() // _GROUP)
    if groups < _FEWEST:
        return torch.zeros_like(p)
    order = integrals.argsort()
    order = order[integrals.numel() % groups :].view(groups, -1)
    levels = integrals[order].median(1).values
    deviations = white_noise(differences[order])
    photons = (levels - 2 * deviations.log()).sort().values[int(_QUIETEST * (groups - 1))]  # logarithm of n_0
    return torch.minimum(_interpolate(p, levels, deviations.cummax(0).values), ((p - photons) / 2).exp())


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return the piecewise linear function through (knots, values) at x, constant beyond the ends."""
    right = torch.searchsorted(knots, x).clamp(1, knots.numel() - 1)
    low, high = knots[right - 1], knots[right]
    width = high - low
    share = ((x - low) / torch.where(width > 0, width, 1)).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)
