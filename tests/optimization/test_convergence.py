import pytest
import torch

from medrecon.errors import NumericalError
from medrecon.optimization.convergence import Convergence


def test_every_sample_stops_for_itself():
    start = torch.ones(3, 2)
    convergence = Convergence("m", 0.1, start)
    first = torch.tensor([[1.0, 1], [2, 2], [3, 3]])
    assert not convergence.update(first, torch.tensor([[0.0, 0], [1, 1], [2, 2]]), 1)
    second = torch.tensor([[9.0, 9], [2, 2], [5, 5]])
    assert not convergence.update(second, torch.tensor([[8.0, 8], [0, 0], [2, 2]]), 2)
    third = torch.tensor([[7.0, 7], [8, 8], [6, 6]])
    assert convergence.result(third).tolist() == [[1, 1], [2, 2], [6, 6]]
    assert convergence.update(third, torch.zeros(3, 2), 3)
    assert convergence.result(third).tolist() == [[1, 1], [2, 2], [6, 6]]


def test_none_stopped():
    convergence = Convergence("m", 0.1, torch.ones(2, 2))
    x = torch.full((2, 2), 2.0)
    assert not convergence.update(x, x, 1)
    assert convergence.result(x) is x


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7])
def test_running_away(value):
    convergence = Convergence("tv", 0.1, torch.ones(2, 2))
    x = torch.tensor([[1.0, 1.0], [value, 1.0]])
    with pytest.raises(NumericalError, match=r"tv: diverged in sample\(s\) \[1\] at iteration 4"):
        convergence.update(x, x, 4)


def test_a_sample_that_has_stopped_may_do_as_it_likes():
    convergence = Convergence("tv", 0.1, torch.ones(2, 1))
    convergence.update(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), 1)
    assert not convergence.update(torch.tensor([[float("nan")], [1.0]]), torch.ones(2, 1), 2)
    assert convergence.result(torch.tensor([[float("nan")], [3.0]])).tolist() == [[1], [3]]
