"""How much each ray of a fan-beam scan counts, so that every line through the image counts once."""

import logging
import math

import torch
from torch import Tensor

_logger = logging.getLogger("medrecon")


def redundancy_weights(angles: Tensor, gamma: Tensor) -> Tensor:
    r"""Return Δβ · w(β, γ) for all rays, (B, views, bins) float64: the measure of fan-beam back-projection.

    Over a full turn every line is seen twice and w = 1/2. A shorter scan sees only some lines twice;
    they are shared between their two views by Parker's weights (Parker, Med. Phys. 9:254, 1982, eq. 12),
    with the fan widened to what was scanned beyond half a turn (Silver, Med. Phys. 27:773, 2000). The views
    may come in any order and rotate either way: they are sorted by angle first, and the ray (β, γ) is seen
    again from β + π - 2γ with the fan angle -γ. Δβ is half of both gaps to the neighbours.

    A scan of less than half a turn and the fan lacks lines; it gets the weights that fit best and a
    warning.

    Parameters
    ----------
    angles
        β in radians, (B, views).
    gamma
        Fan angles of the bins in radians, (bins,).
    """
    return torch.stack([_weights(beta, gamma) for beta in angles])


def _weights(beta: Tensor, gamma: Tensor) -> Tensor:
    views, turn = beta.shape[0], 2 * math.pi
    if views == 1:
        return torch.full((1, gamma.shape[0]), math.pi, dtype=torch.float64, device=beta.device)
    same = 0.01 * turn / views  # angles closer than this are one view; they may come from single precision
    circle, order = beta.remainder(turn).sort()
    gaps = torch.diff(circle, append=circle[:1] + turn)
    distinct = gaps[gaps > same]
    usual = float(distinct.median()) if len(distinct) else turn
    last = int(gaps.argmax())
    weights = torch.empty(views, gamma.shape[0], dtype=torch.float64, device=beta.device)
    if float(gaps[last]) <= 3 * usual:  # a full turn
        step = (gaps + gaps.roll(1)) / 2
        weights[order] = (step / 2)[:, None].expand(-1, gamma.shape[0])
        return weights
    missing = float(gaps[last])
    gaps = torch.where(gaps > 3 * usual, usual, gaps)
    step = (gaps + gaps.roll(1)) / 2
    scanned = turn - missing + usual
    start = float(circle[(last + 1) % views])
    since = (circle - start).remainder(turn) + usual / 2
    since = torch.where(since > turn - same, since - turn, since)
    weights[order] = step[:, None] * parker(since[:, None], gamma[None], scanned)
    return weights


def parker(since: Tensor, gamma: Tensor, scanned: float) -> Tensor:
    """Return Parker's weight of the ray γ at the angle ``since`` after the start of a scan that long (radians).

    Weights of a line's two rays add up to 1; a line that is seen once has weight 1.
    """
    fan = float(gamma.abs().max())
    half = (scanned - math.pi) / 2
    if half < fan * (1 - 1e-3):
        _logger.warning(
            "the scan covers %.0f degrees, half a turn and the fan are %.0f: some lines are missing and the image will "
            "have streaks; an iterative --method copes better",
            math.degrees(scanned),
            math.degrees(math.pi + 2 * fan),
        )
        half = fan
    rise, fall = half + gamma, half - gamma
    up = torch.sin(math.pi / 4 * since / rise.clamp_min(1e-9)) ** 2
    down = torch.sin(math.pi / 4 * (math.pi + 2 * half - since) / fall.clamp_min(1e-9)) ** 2
    weight = torch.where(since < 2 * rise, up, torch.where(since <= math.pi + 2 * gamma, torch.ones_like(up), down))
    return torch.where((since < 0) | (since > math.pi + 2 * half), 0, weight)
