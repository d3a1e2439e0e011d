"""A batched operator does to every sample what that sample's own operator does."""

import pytest
import torch

from medrecon.errors import OperatorError
from medrecon.operators import (
    BlockCompressedSensing,
    CartesianMRI,
    Inpainting,
    ParallelBeam2D,
    batch_operators,
    vstack,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def mask(seed, *shape):
    return torch.rand(shape, generator=generator(seed)) < 0.5


def maps(seed):
    return torch.randn(1, 3, 8, 6, dtype=torch.complex64, generator=generator(seed))


FAMILIES = {
    "masks": lambda n: CartesianMRI(mask(n, 8, 6)),
    "line mask beside point mask": lambda n: CartesianMRI(
        mask(n, 8, 6) if n % 2 else mask(n, 1, 6), image_shape=(8, 6)
    ),
    "masks and maps": lambda n: CartesianMRI(mask(n, 8, 6), maps(n)),
    "drawn permutations": lambda n: BlockCompressedSensing((1, 8, 6), 0.5, block_size=4, permutation_seed=n),
    "angles": lambda n: ParallelBeam2D((1, 8, 8), torch.rand(5, generator=generator(n)) * 3, detector_count=13),
    "multiples": lambda n: (n + 0.5) * Inpainting(mask(n, 1, 8, 6)),
    "compositions": lambda n: CartesianMRI(mask(n, 8, 6)) @ Inpainting(mask(n + 9, 1, 8, 6), dtype=torch.complex64),
    "stacks": lambda n: vstack(
        [Inpainting(mask(n, 1, 8, 6)), BlockCompressedSensing((1, 8, 6), 0.5, block_size=4, permutation_seed=n)]
    ),
    "batches of two": lambda n: Inpainting(mask(n, 2, 1, 8, 6)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_one_by_one(name):
    operators = [FAMILIES[name](n) for n in range(3)]
    whole = batch_operators(operators)
    sizes = [operator.batch_size for operator in operators]
    assert whole.batch_size == sum(sizes)
    x = torch.randn(sum(sizes), *whole.image_shape, dtype=whole.image_dtype, generator=generator(7))
    y = whole(x)
    wanted = torch.cat([operator(part) for operator, part in zip(operators, x.split(sizes), strict=True)])
    assert torch.allclose(y, wanted, atol=1e-5)
    back = torch.cat([operator.adjoint(part) for operator, part in zip(operators, y.split(sizes), strict=True)])
    assert torch.allclose(whole.adjoint(y), back, atol=1e-4)
    assert whole.pinv_kind == operators[0].pinv_kind


def test_one_operator_stays_one():
    operator = Inpainting(mask(0, 1, 4, 4))
    assert batch_operators([operator] * 3) is operator


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        ([], r"expected at least one operator"),
        ([Inpainting(mask(0, 1, 4, 4)), Inpainting(mask(0, 1, 4, 5))], r"sample 1 has Inpainting \(image \(1, 4, 5\)"),
        ([Inpainting(mask(0, 1, 4, 4)), BlockCompressedSensing((1, 4, 4), 1.0)], r"needs one class and one shape"),
        (
            [
                BlockCompressedSensing((1, 8, 8), 0.5, block_size=4, seed=1),
                BlockCompressedSensing((1, 8, 8), 0.5, block_size=4, seed=2),
            ],
            r"samples 0 and 1, BlockCompressedSensing both, differ in seed; only tensors may differ",
        ),
    ],
)
def test_what_does_not_fit(operators, message):
    with pytest.raises(OperatorError, match=message):
        batch_operators(operators)
