"""Ring artefacts: stripes along the views in a sinogram."""

import torch
from torch import Tensor

from medrecon.errors import UsageError


def suppress_rings(sinogram: Tensor, *, width: int = 21) -> Tensor:
    r"""Return a sinogram without the stripes that detector bins of uneven gain leave.

    Every bin's readings are sorted by size; in the sorted sinogram neighbouring bins have nearly the
    same values, so a median of ``width`` bins removes what one bin has of its own, whatever the gain
    depends on, and the readings go back to where they were (Vo, Atwood and Drakopoulos, Opt. Express
    26:28396, 2018, algorithm 3). Rings narrower than half the width are removed; structures that stay at one
    distance from the axis over the whole turn would be, too, and small ones lose some contrast.

    Parameters
    ----------
    sinogram
        (..., views, bins) line integrals.
    width
        Bins of the median, odd.

    Returns
    -------
        The same shape and type.
    """
    if width < 3 or width % 2 == 0:
        raise UsageError(f"suppress_rings: width must be odd and at least 3, got {width}")
    if sinogram.shape[-1] <= width or sinogram.shape[-2] < 2:
        return sinogram.clone()
    ordered, order = sinogram.sort(dim=-2)
    half = width // 2
    padded = torch.cat((ordered[..., 1 : half + 1].flip(-1), ordered, ordered[..., -half - 1 : -1].flip(-1)), -1)
    smooth = padded.unfold(-1, width, 1).median(-1).values
    return torch.empty_like(sinogram).scatter_(-2, order, smooth)
