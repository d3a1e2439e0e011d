"""Times of consistency training, against formulas written out."""

import math

import pytest
import torch
from scipy.stats import norm

from medrecon.errors import UsageError
from medrecon.models.karras import checked_end_times, discretization_steps, draw_times, interval_law, karras_grid


def test_grid():
    grid = karras_grid(0.002, 80.0, 18)
    assert grid.dtype == torch.float64
    for i in (0, 5, 18):
        root = 0.002 ** (1 / 7) + i / 18 * (80 ** (1 / 7) - 0.002 ** (1 / 7))
        assert float(grid[i]) == pytest.approx(root**7, rel=1e-12)
    assert (float(grid[0]), float(grid[-1])) == (0.002, 80.0)
    assert bool((grid.diff() > 0).all())
    with pytest.raises(UsageError, match="at least one interval, got 0"):
        karras_grid(0.002, 80.0, 0)


def test_steps_double():
    stage = 400_000 // 8
    steps = [discretization_steps(k, 400_000) for k in range(0, 500_000, stage)]
    assert steps == [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]
    assert discretization_steps(stage - 1, 400_000) == 10
    assert discretization_steps(10**9, 400_000) == 1280
    assert [discretization_steps(k, 100, 320, 320) for k in (0, 99, 1000)] == [320, 320, 320]
    assert [discretization_steps(k, 3, 10, 35) for k in range(4)] == [10, 20, 35, 35]
    assert discretization_steps(7, 1) == 1280


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 20, "last": 10}, {"total": 0}])
def test_wrong_curricula(wrong):
    with pytest.raises(UsageError, match="expected 1 <= first <= last and total >= 1"):
        discretization_steps(**{"batch": 0, "total": 10, "first": 10, "last": 20, **wrong})


def test_interval_law_is_lognormal():
    grid = karras_grid(0.002, 80.0, 40)
    law = interval_law(grid)
    mass = [norm.cdf(math.log(b), -1.1, 2.0) - norm.cdf(math.log(a), -1.1, 2.0) for a, b in grid.unfold(0, 2, 1)]
    assert torch.allclose(law, torch.tensor(mass, dtype=torch.float64) / sum(mass), rtol=1e-9)
    assert float(law[-1]) > 0  # σ_max, where sampling starts, is trained


@pytest.mark.parametrize("end_times", ["lognormal", "uniform"])
def test_drawn_times_follow_their_laws(end_times):
    torch.manual_seed(0)
    grid, count = karras_grid(0.002, 80.0, 8), 200_000
    times = draw_times(grid, count, end_times)
    n, after, j = (torch.searchsorted(grid, t) for t in times)
    assert torch.equal(after, n + 1)
    assert not bool((j == after).any())
    law = interval_law(grid)
    assert torch.allclose(torch.bincount(n, minlength=8) / count, law.float(), atol=5e-3)
    weights = torch.cat((law, law[-1:])) if end_times == "lognormal" else torch.ones(9).double()
    for place in (0, 4, 7):
        wanted = weights.clone()
        wanted[place + 1] = 0
        found = torch.bincount(j[n == place], minlength=9) / int((n == place).sum())
        assert torch.allclose(found, (wanted / wanted.sum()).float(), atol=3e-2), place
    assert bool((times.upper == 80).any())
    assert bool((times.end == 80).any())


def test_one_interval():
    times = draw_times(karras_grid(0.1, 2.0, 1), 5, "uniform")
    assert times.end.tolist() == times.lower.tolist() == [0.1] * 5


def test_unknown_law():
    with pytest.raises(UsageError, match="end_times: expected lognormal or uniform, got 'normal'"):
        checked_end_times("normal")
    with pytest.raises(UsageError, match="got 'normal'"):
        draw_times(karras_grid(0.1, 2.0, 3), 5, "normal")
