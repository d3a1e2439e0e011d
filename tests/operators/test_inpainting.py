import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import Inpainting
from medrecon.testing import assert_linear_operator


def random_mask(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4


@pytest.mark.parametrize(
    "operator",
    [
        Inpainting(random_mask(1, 7, 5)),
        Inpainting(random_mask(1, 7, 5), channels=3),
        Inpainting(random_mask(3, 7, 5)),
        Inpainting(random_mask(4, 1, 7, 5)),
        Inpainting(random_mask(1, 6, 5), dtype=torch.complex64),
    ],
)
def test_contract(operator):
    assert operator.pinv_kind == "exact"
    assert_linear_operator(operator)


def test_keeps_what_was_seen():
    mask = random_mask(1, 6, 6)
    x = torch.rand(2, 1, 6, 6)
    assert torch.equal(Inpainting(mask)(x), torch.where(mask, x, 0))


@pytest.mark.parametrize("mask", [torch.ones(4, 4), torch.full((1, 4, 4), 0.5)])
def test_refuses_what_is_no_mask(mask):
    with pytest.raises(OperatorError, match="zeros and ones"):
        Inpainting(mask)
