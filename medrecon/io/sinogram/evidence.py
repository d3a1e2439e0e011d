"""What a sinogram itself tells about mistakes in its description."""

import math

import torch
from torch import Tensor

from medrecon.operators.ct.base import XRayTransform

_ROUND = 0.05
_LARGEST_LINE = 25.0
_EDGE_SHARE = 0.1


def angle_notes(operator: XRayTransform) -> list[str]:
    """Return warnings about angles that look like those of the other unit, or that leave the image undetermined."""
    angles = operator.angles[0]
    views = operator.data_shape[1]
    if views < 2:
        return ["the sinogram has a single view"]
    ordered = angles.sort().values
    span = float(ordered[-1] - ordered[0]) * views / (views - 1)
    found = []
    as_radians = math.degrees(span)
    for turn, words in ((math.pi, "half a turn"), (2 * math.pi, "a full turn")):
        if views > 10 and abs(as_radians - turn) < _ROUND * turn:
            found.append(
                f"WARNING: the angles span {as_radians:.3f} degrees, which in radians would be {words}: is angle_unit "
                "rad?"
            )
        if views > 10 and abs(math.radians(span) - turn) < _ROUND * turn:
            found.append(
                f"WARNING: the angles span {span:.4g} radians ({span / 2 / math.pi:.0f} turns), which in degrees would "
                f"be {words}: is angle_unit deg?"
            )
    if not found and span < math.pi * (1 - 0.02) - (math.pi / views):
        found.append(
            f"limited angle: the views cover {math.degrees(span):.0f} degrees of 180; the image cannot be exact"
        )
    return found


def data_notes(y: Tensor) -> list[str]:
    """Return warnings about line integrals (views, bins) that are none, and about objects that are cut off."""
    finite = y[torch.isfinite(y)]
    if not len(finite):
        return []
    found = []
    low, high = float(finite.min()), float(finite.max())
    if high > _LARGEST_LINE:
        found.append(
            f"WARNING: line integrals reach {high:.4g}, behind which not one photon of 10^{high / math.log(10):.0f} is "
            "left: are these counts or another unit (data.quantity, data.scale)?"
        )
    if low < -max(1.0, 0.2 * high):
        found.append(f"WARNING: line integrals go down to {low:.4g}, as if the object shone: is the white field right?")
    usual = float(finite.clamp_min(0).mean())
    width = max(2, y.shape[1] // 100)
    edges = torch.cat((y[:, :width], y[:, -width:]), 1)
    edge = float(edges[torch.isfinite(edges)].median()) if bool(torch.isfinite(edges).any()) else 0.0
    if usual > 0 and edge > _EDGE_SHARE * float(finite.quantile(0.99) if len(finite) < 10**7 else finite.max()):
        found.append(
            f"truncated: the object is wider than the detector (the outermost bins read {edge:.3g}, the mean is "
            f"{usual:.3g}); values near the border of the image will be too bright"
        )
    return found
