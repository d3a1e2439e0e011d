"""Samplers by name, and the one that is given its mask."""

import numpy as np
import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators.samplers import FixedMask, MaskSampler, available_samplers, make_sampler


def test_every_name_builds_and_draws():
    for name, parameters in available_samplers().items():
        given = {"mask": torch.ones(48)} if name == "from-file" else {"acceleration": 4}
        if parameters[:2] == ("acceleration", "center_fraction"):
            given["center_fraction"] = 0.08
        sampler = make_sampler(name, given)
        assert isinstance(sampler, MaskSampler)
        mask = sampler.draw((40, 48), torch.Generator().manual_seed(0))
        assert mask.dtype == torch.bool
        assert mask.shape in ((1, 48), (40, 48))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("equispace", {}, "did you mean 'equispaced'"),
        ("xyz", {}, "known: equispaced, "),
        ("radial", {"accelaration": 4}, "no parameter 'accelaration'; did you mean 'acceleration'"),
        ("random", {"acceleration": 4}, "needs center_fraction"),
        ("random", {}, "needs acceleration and center_fraction"),
    ],
)
def test_errors(name, parameters, message):
    with pytest.raises(UsageError, match=message):
        make_sampler(name, parameters)


@pytest.mark.parametrize(
    "mask", [[0, 1, 1, 0], [[0, 1, 1, 0]], np.array([0.0, 1, 1, 0]), torch.tensor([0, 1j, 1, 0]) != 0]
)
def test_given_line_mask(mask):
    drawn = make_sampler("from-file", {"mask": mask}).draw((3, 4), torch.Generator())
    assert drawn.tolist() == [[False, True, True, False]]


def test_given_mask_is_a_copy():
    mask = torch.ones(2, 4, dtype=torch.bool)
    sampler = FixedMask(mask)
    mask[:] = False
    sampler.draw((2, 4), torch.Generator())[:] = False
    assert sampler.draw((2, 4), torch.Generator()).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([0.5, 1], "only 0 and 1"),
        ([0, 0], "at least one sample"),
        (torch.ones(1, 2, 2), "expected a mask"),
        ("mask.npy", "not an array"),
    ],
)
def test_given_mask_errors(mask, message):
    with pytest.raises(UsageError, match=message):
        FixedMask(mask)


def test_given_mask_of_another_size():
    with pytest.raises(UsageError, match=r"the mask is \(1, 4\), the k-space plane 3x5"):
        FixedMask(torch.ones(4)).draw((3, 5), torch.Generator())
