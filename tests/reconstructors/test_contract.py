"""What every method promises, for every method."""

import pytest
import torch

from medrecon.errors import NumericalError, OperatorError
from medrecon.operators import CartesianMRI, Inpainting
from medrecon.reconstructors import Adjoint, Cgls, L1Wavelet, Tikhonov, TotalVariation, available_methods, make_method

# few iterations, and tolerances at which samples of a batch stop at different times
METHODS = [
    Adjoint(),
    Cgls(max_iter=15, tol=1e-3),
    Tikhonov(max_iter=15, tol=1e-3),
    TotalVariation(max_iter=25, tol=1e-2),
    L1Wavelet(max_iter=25, tol=1e-2),
]
ITERATIVE = METHODS[1:]


def name(method):
    return method.registered_name


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("method", METHODS, ids=name)
class TestEveryMethod:
    def test_shape_dtype_and_no_gradient(self, method, brain):
        data = brain.data.clone().requires_grad_()
        image = method(data, brain.operator)
        assert image.shape == (1, 1, 64, 48)
        assert image.dtype == torch.complex64
        assert not image.requires_grad

    def test_batch_equals_loop(self, method, brain):
        scales = torch.tensor([1.0, 0.05, 300.0]).reshape(3, 1, 1, 1)
        noise = torch.randn(3, 4, 64, 48, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
        levels = torch.tensor([0.0, 0.3, 0.02]).reshape(3, 1, 1, 1)
        data = scales * (brain.data + levels * brain.operator.mask * noise)
        whole = method(data, brain.operator)
        for index in range(3):
            assert relative(whole[index], method(data[index : index + 1], brain.operator)[0]) < 1e-4

    def test_one_operator_a_sample(self, method, brain, make):
        masks = torch.stack([make.line_mask(48, step) for step in (2, 3)])[:, None].expand(2, 64, 48)
        operator = CartesianMRI(masks, brain.maps)
        data = operator(brain.image.expand(2, -1, -1, -1))
        whole = method(data, operator)
        for index in range(2):
            single = CartesianMRI(masks[index], brain.maps)
            assert relative(whole[index], method(data[index : index + 1], single)[0]) < 1e-4

    def test_scales_with_the_data(self, method, brain):
        image = method(brain.data, brain.operator)
        for factor in (1e-18, 1e-6, 1e6):
            assert relative(method(brain.data * factor, brain.operator) / factor, image) < 1e-4

    def test_zero_data_give_zero(self, method, brain):
        assert method(torch.zeros_like(brain.data), brain.operator).abs().max() == 0

    def test_zero_sample_beside_another(self, method, brain):
        data = torch.cat((torch.zeros_like(brain.data), brain.data))
        image = method(data, brain.operator)
        assert image[0].abs().max() == 0
        assert relative(image[1], method(brain.data, brain.operator)[0]) < 1e-4

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_not_finite(self, method, brain, value):
        data = brain.data.clone()
        data[0, 0, 32, 24] = value
        with pytest.raises(NumericalError, match=r"NaN or Inf in the measurements of sample\(s\) \[0\].*--nonfinite"):
            method(data, brain.operator)

    def test_wrong_shape(self, method, brain):
        with pytest.raises(OperatorError, match=r"expected measurements of shape \(batch, 4, 64, 48\)"):
            method(brain.data[:, :2], brain.operator)

    def test_not_an_operator(self, method, brain):
        with pytest.raises(OperatorError, match="expected a LinearOperator, got Identity"):
            method(brain.data, torch.nn.Identity())

    def test_double_precision(self, method, brain, make):
        maps = make.coil_maps(64, 48, 4).to(torch.complex128)
        operator = CartesianMRI(make.line_mask(48), maps, dtype=torch.complex128)
        image = method(brain.data.to(torch.complex128), operator)
        assert image.dtype == torch.complex128
        assert relative(image.to(torch.complex64), method(brain.data, brain.operator)) < 1e-3

    def test_real_images(self, method):
        generator = torch.Generator().manual_seed(1)
        operator = Inpainting(torch.rand(3, 20, 17, generator=generator) < 0.6)
        data = operator(torch.ones(2, 3, 20, 17))
        image = method(data, operator)
        assert image.shape == (2, 3, 20, 17)
        assert image.dtype == torch.float32

    def test_volume(self, method, make):
        volume = torch.stack([make.phantom(24, 20) * (1 - abs(z - 4) / 5) for z in range(9)])[None, None]
        operator = CartesianMRI(make.line_mask(20), image_shape=(9, 24, 20), spatial_dims=3)
        image = method(operator(volume), operator)
        assert image.shape == (1, 1, 9, 24, 20)
        assert bool(torch.isfinite(image.abs()).all())

    def test_two_map_sets(self, method, brain):
        second = 0.3 * brain.maps.roll(1, 0)
        operator = CartesianMRI(brain.operator.mask[0], torch.stack((brain.maps, second)))
        assert method(brain.data, operator).shape == (1, 2, 64, 48)

    def test_axis_of_length_one(self, method):
        operator = Inpainting(torch.arange(40).reshape(1, 1, 40) % 3 > 0)
        assert method(operator(torch.ones(1, 1, 1, 40)), operator).shape == (1, 1, 1, 40)

    def test_rebuilt_from_its_config(self, method, brain):
        again = make_method(method.registered_name, method.config())
        assert again.config() == method.config()
        assert torch.equal(again(brain.data, brain.operator), method(brain.data, brain.operator))

    def test_listed(self, method):
        info = available_methods()[method.registered_name]
        assert info.summary.endswith(".") or info.summary.endswith(")")
        assert list(info.parameters) == list(method.config())

    def test_autocast_changes_nothing(self, method, brain):
        plain = method(brain.data, brain.operator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(method(brain.data, brain.operator), plain)

    def test_leaves_the_operator_and_the_data(self, method):
        # gram of this operator returns its argument: writing into it would show
        operator = Inpainting(torch.ones(1, 16, 16, dtype=torch.bool))
        data = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        before = data.clone()
        method(data, operator)
        assert torch.equal(data, before)


@pytest.mark.parametrize("method", ITERATIVE, ids=name)
def test_progress(method, brain):
    calls = []
    method(brain.data, brain.operator, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {method.max_iter}


@pytest.mark.parametrize("method", METHODS[3:], ids=name)
@pytest.mark.parametrize("factor", [0.1, 100.0, 1e-6])
def test_any_operator_norm(method, brain, factor):
    plain = method(brain.data, brain.operator)
    scaled = method(brain.data * factor, brain.operator * factor)
    assert relative(scaled, plain) < 1e-3


@pytest.mark.parametrize("method", METHODS[3:], ids=name)
def test_an_operator_norm_for_every_sample(method, brain):
    factors = torch.tensor([0.1, 100.0])
    operator = brain.operator * factors
    data = brain.data * factors.reshape(2, 1, 1, 1)
    image = method(data, operator)
    plain = method(brain.data, brain.operator)[0]
    assert max(relative(image[0], plain), relative(image[1], plain)) < 1e-3


@pytest.mark.parametrize("method", [TotalVariation(), L1Wavelet()], ids=name)
def test_divergence_raises(method, brain):
    class Understated(CartesianMRI):
        def norm_bound(self):
            return 0.3 * super().norm_bound()

    operator = Understated(brain.operator.mask[0], brain.maps)
    with pytest.raises(NumericalError, match=r"diverged in sample\(s\) \[0\] at iteration \d+.*norm_bound"):
        method(brain.data, operator)


@pytest.mark.parametrize("method", METHODS[3:], ids=name)
def test_starts_where_the_operator_says(method, brain):
    class InOtherUnits(CartesianMRI):
        def initial(self, y):
            return 1e5 * self.adjoint(y)

    operator = InOtherUnits(brain.operator.mask[0], brain.maps)
    assert relative(method(brain.data, operator), method(brain.data, brain.operator)) < 1e-3
