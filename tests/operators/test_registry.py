import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.operators import CartesianMRI, Inpainting, LinearOperator, available_operators, operator_from_config
from medrecon.operators.registry import operator_class, register_operator


def test_ours_are_found_by_name():
    assert operator_class("cartesian-mri") is CartesianMRI
    assert {"cartesian-mri", "inpainting", "block-compressed-sensing"} <= available_operators().keys()


def test_misspelt_name_gets_a_suggestion():
    with pytest.raises(UsageError, match="did you mean 'cartesian-mri'"):
        operator_class("cartesian-mir")


def test_taken_name_raises():
    with pytest.raises(UsageError, match=r"taken by medrecon\.operators\.inpainting\.Inpainting"):

        @register_operator("inpainting")
        class Other(Inpainting):
            pass


def test_nested_config_round_trip():
    operator = (CartesianMRI(image_shape=(4, 4)) * 2.0) @ Inpainting(torch.ones(1, 4, 4), dtype=torch.complex64)
    rebuilt = operator_from_config(operator.config(), operator.tensors())
    x = torch.randn(1, 1, 4, 4, dtype=torch.complex64)
    assert isinstance(rebuilt, LinearOperator)
    torch.testing.assert_close(rebuilt(x), operator(x))


@pytest.mark.parametrize("config", [{}, {"operator": "inpainting"}, {"operator": 3}])
def test_broken_config_raises(config):
    with pytest.raises(InputError):
        operator_from_config(config, {})
