"""The kit must fail for every promise that is broken."""

import pytest
import torch

from medrecon.operators import Inpainting
from medrecon.testing import assert_linear_operator

MASK = torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.5


class WrongAdjoint(Inpainting):
    def _adjoint(self, y):
        return 1.1 * y * self.mask


class Affine(Inpainting):
    def _forward(self, x):
        return x * self.mask + 1


class Mutating(Inpainting):
    def _forward(self, x):
        result = x * self.mask
        self.mask.mul_(1 + 1e-7).add_(1e-9)
        return result


class NotExact(Inpainting):
    def _forward(self, x):
        return 2 * x * self.mask

    def _adjoint(self, y):
        return 2 * y * self.mask

    def _gram(self, x):
        return 4 * x * self.mask

    def norm(self, **_):
        return torch.full((1,), 2.0)


class WrongNorm(Inpainting):
    def norm(self, **_):
        return torch.full((1,), 0.5)


class ForgetsMask(Inpainting):
    @classmethod
    def from_config(cls, config, tensors):
        return super().from_config(config, {"mask": torch.ones_like(tensors["mask"])})


class MixesBatch(Inpainting):
    def _forward(self, x):
        return x.flip(0) * self.mask

    def _adjoint(self, y):
        return y.flip(0) * self.mask


@pytest.mark.parametrize("cls", [WrongAdjoint, Affine, Mutating, NotExact, WrongNorm, ForgetsMask, MixesBatch])
def test_broken_promise_is_found(cls, monkeypatch):
    from medrecon.operators import registry

    monkeypatch.setitem(registry._registered, "inpainting", cls)
    with pytest.raises(AssertionError, match=cls.__name__):
        assert_linear_operator(cls(MASK))
