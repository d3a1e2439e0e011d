import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import CartesianMRI, Inpainting, vstack
from medrecon.operators.composition import Weighted
from medrecon.testing import assert_linear_operator


def gaussian(*shape, seed=0, dtype=torch.complex64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_mask(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


fourier = CartesianMRI(image_shape=(6, 5))
undersampled = CartesianMRI(random_mask(6, 5))
coils = CartesianMRI(random_mask(6, 5), gaussian(3, 6, 5))
seen = Inpainting(random_mask(1, 6, 5), dtype=torch.complex64)


@pytest.mark.parametrize(
    "operator",
    [
        undersampled.H,
        coils.H.H,
        coils @ seen,
        seen @ fourier,
        undersampled @ fourier.H,
        coils * 3.0,
        coils * torch.tensor([1.0, 0.1, 30.0]),
        -2.0 * undersampled,
        coils.normalized(),
        seen + 0.5 * fourier,
        vstack([coils, seen]),
        Weighted(coils, 0.1 + torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(2))),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_contract(operator):
    assert_linear_operator(operator, tol_pinv=0.05)


def test_weights_do_not_change_the_precision():
    single = Weighted(coils, torch.full((1, 3, 6, 5), 0.5, dtype=torch.float64))
    assert single(gaussian(1, 1, 6, 5)).dtype == torch.complex64
    assert single.adjoint(gaussian(1, 3, 6, 5)).dtype == torch.complex64
    assert single(gaussian(1, 1, 6, 5, dtype=torch.complex128)).dtype == torch.complex128


def test_algebra_reads_like_mathematics():
    x = gaussian(2, 1, 6, 5)
    torch.testing.assert_close((coils @ seen)(x), coils(seen(x)))
    torch.testing.assert_close((seen + fourier)(x), seen(x) + fourier(x))
    torch.testing.assert_close((2.0 * coils)(x), 2 * coils(x))
    torch.testing.assert_close(vstack([coils, seen])(x), torch.cat([coils(x).flatten(1), seen(x).flatten(1)], 1))
    assert coils.H.H is coils


def test_kind_of_pseudo_inverse_is_never_guessed():
    assert (undersampled @ fourier.H).pinv_kind == "exact"
    assert (seen @ fourier).pinv_kind == "exact"
    assert (undersampled @ seen).pinv_kind == "iterative"
    assert (coils * 2.0).pinv_kind == "iterative"
    assert (undersampled * 2.0).pinv_kind == "exact"


def test_normalized():
    torch.testing.assert_close((coils * 100.0).normalized().norm(), torch.ones(1), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: seen @ coils,
        lambda: coils + seen,
        lambda: coils * float("nan"),
        lambda: coils * 0.0,
        lambda: vstack([]),
        lambda: Weighted(seen, torch.ones(1, 1, 6, 4)),
        lambda: Weighted(seen, torch.ones(1, 1, 6, 5, dtype=torch.complex64)),
        lambda: Weighted(seen, torch.zeros(1, 1, 6, 5)),
    ],
)
def test_misfits_raise(build):
    with pytest.raises(OperatorError):
        build()
