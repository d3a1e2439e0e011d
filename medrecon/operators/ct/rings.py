"""Ring artefacts: stripes along the views in a sinogram."""

import torch
from torch import Tensor

from medrecon.errors import UsageError


def suppress_rings(sinogram: Tensor, *, width: int | None = None) -> Tensor:
    r"""Return a sinogram without the stripes that detector bins of uneven gain leave.

    A bin whose gain is off by a factor g adds -ln g to all its line integrals, the same in every view. Every bin's
    readings are sorted by size; neighbouring bins then have nearly the same values at the same rank, and what a
    bin differs by from the median of ``width`` bins, again the median of that over all ranks, is its stripe
    and is subtracted (the sorting is that of Vo, Atwood and Drakopoulos, Opt. Express 26:28396, 2018; they
    replace the values by the median, which costs sharpness where there is no stripe).

    Stripes up to half of ``width`` bins wide are removed. What stays at one distance from the axis over the
    whole turn is a ring and looks the same: small round objects at the axis lose contrast.

    Parameters
    ----------
    sinogram
        (..., views, bins) line integrals.
    width
        Bins of the median, odd; None takes a fortieth of the detector, between 5 and 31.

    Returns
    -------
        The same shape and type.
    """
    if width is None:
        width = min(max(sinogram.shape[-1] // 40, 5), 31) | 1
    if width < 3 or width % 2 == 0:
        raise UsageError(f"suppress_rings: width must be odd and at least 3, got {width}")
    if sinogram.shape[-1] <= width or sinogram.shape[-2] < 2:
        return sinogram.clone()
    ordered = sinogram.sort(dim=-2).values
    half = width // 2
    padded = torch.cat((ordered[..., 1 : half + 1].flip(-1), ordered, ordered[..., -half - 1 : -1].flip(-1)), -1)
    smooth = padded.unfold(-1, width, 1).median(-1).values
    return sinogram - (ordered - smooth).median(dim=-2, keepdim=True).values
