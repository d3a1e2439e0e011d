"""Times of consistency training: the grid, how many there are, and which are drawn."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from medrecon.errors import UsageError

EndTimes = Literal["lognormal", "uniform"]
"""See :func:`draw_times`."""


class TrainingTimes(NamedTuple):
    """Times of a batch, (B,) each.

    Attributes
    ----------
    lower, upper
        t_n and t_{n+1}.
    end
        t', never t_{n+1}.
    """

    lower: Tensor
    upper: Tensor
    end: Tensor


def karras_grid(sigma_min: float, sigma_max: float, intervals: int, rho: float = 7.0) -> Tensor:
    r"""Return t_0 = σ_min < … < t_N = σ_max, (N + 1,), in double precision.

    .. math:: t_i = \left(σ_{min}^{1/ρ} + \tfrac{i}{N} (σ_{max}^{1/ρ} - σ_{min}^{1/ρ})\right)^ρ

    (Karras et al., NeurIPS 2022, equation 5, from the other end).

    Examples
    --------
    >>> karras_grid(1.0, 32.0, 2, rho=5.0).tolist()
    [1.0, 7.59375, 32.0]
    """
    if intervals < 1:
        raise UsageError(f"karras_grid: there is at least one interval, got {intervals}")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    grid = (low + torch.arange(intervals + 1, dtype=torch.float64) / intervals * (high - low)) ** rho
    grid[0], grid[-1] = sigma_min, sigma_max  # exact, whatever the powers round to
    return grid


def discretization_steps(batch: int, total: int, first: int = 10, last: int = 1280) -> int:
    r"""Return N, the number of intervals, which doubles as training goes on.

    .. math:: N(k) = \min(s_1,\, s_0 2^{⌊k / K'⌋}), \qquad K' = ⌊K / (\log_2(s_1 / s_0) + 1)⌋

    (Song and Dhariwal, ICLR 2024, equation 8).

    Parameters
    ----------
    batch
        k, batches before this one.
    total
        K, batches in all; N stays where it is after them.
    first, last
        s_0 and s_1, equal for a fixed N.

    Examples
    --------
    >>> [discretization_steps(k, 400, 10, 160) for k in (0, 79, 80, 400)]
    [10, 10, 20, 160]
    """
    if not 1 <= first <= last or total < 1:
        raise UsageError(
            f"discretization_steps: expected 1 <= first <= last and total >= 1, got {first}, {last} and {total}"
        )
    stage = max(1, math.floor(total / (math.log2(last / first) + 1)))
    doublings = min(batch // stage, math.ceil(math.log2(last / first)))
    return min(last, first * 2**doublings)


def interval_law(grid: Tensor, mean: float = -1.1, deviation: float = 2.0) -> Tensor:
    r"""Return the probability of each interval, (N,): a log-normal law of t, cut to the grid.

    .. math:: p(n) ∝ \operatorname{erf}\frac{\ln t_{n+1} - m}{\sqrt2 s} - \operatorname{erf}\frac{\ln t_n - m}{\sqrt2 s}

    (Song and Dhariwal, ICLR 2024, equation 10). The last interval has its share: without it the network would
    never see t = σ_max, where sampling starts.

    Parameters
    ----------
    grid
        (N + 1,), rising.
    mean, deviation
        m and s, of ln t.
    """
    cumulative = torch.erf((grid.double().log() - mean) / (2**0.5 * deviation))
    law = cumulative.diff()
    return law / law.sum()


def draw_times(grid: Tensor, count: int, end_times: EndTimes = "lognormal") -> TrainingTimes:
    """Return random intervals and end times, from torch's default generator.

    An interval n has the probability p(n) of :func:`interval_law`; the end time t' is a point t_j other than t_{n+1},
    with a weight of p(min(j, N - 1)) for "lognormal", as the authors have it, and 1 for "uniform": by the first
    hardly any end time is near σ_max, and inversion is learned last.

    Parameters
    ----------
    grid
        (N + 1,), rising.
    count
        B.
    end_times
        The law of t'.
    """
    checked_end_times(end_times)
    law = interval_law(grid)
    n = torch.multinomial(law, count, replacement=True)
    weights = torch.cat((law, law[-1:])) if end_times == "lognormal" else torch.ones_like(grid, dtype=law.dtype)
    table = weights.repeat(count, 1).scatter(1, n[:, None] + 1, 0.0)
    j = torch.multinomial(table, 1)[:, 0]
    return TrainingTimes(grid[n], grid[n + 1], grid[j])


def checked_end_times(end_times: EndTimes) -> None:
    """Raise a UsageError for a law that does not exist."""
    if end_times not in get_args(EndTimes):
        raise UsageError(f"end_times: expected {' or '.join(get_args(EndTimes))}, got {end_times!r}")
