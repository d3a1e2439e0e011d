import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import CartesianMRI
from medrecon.reconstructors import Adjoint, Tikhonov


def test_solves_the_normal_equations(brain):
    image = Tikhonov(0.05, 100, 1e-7)(brain.data, brain.operator)
    residual = brain.operator.gram(image) + 0.05 * image - brain.operator.adjoint(brain.data)
    assert float(residual.norm() / image.norm()) < 1e-5


def test_closed_form_for_one_coil(make):
    operator = CartesianMRI(make.line_mask(48), image_shape=(64, 48))
    data = operator(make.phantom(64, 48)[None, None])
    assert torch.allclose(Tikhonov(0.25)(data, operator), operator.adjoint(data) / 1.25, atol=1e-5)


def test_beats_the_adjoint(brain):
    def error(method):
        return float((method(brain.data, brain.operator) - brain.image).norm())

    assert error(Tikhonov()) < 0.7 * error(Adjoint())


def test_needs_the_exact_adjoint(brain):
    operator = CartesianMRI(brain.operator.mask[0], brain.maps)
    operator.adjoint_matched = False
    with pytest.raises(OperatorError, match=r"adjoint.*of CartesianMRI is approximate; use the method tv"):
        Tikhonov()(brain.data, operator)
