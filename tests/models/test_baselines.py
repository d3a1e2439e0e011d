"""The U-Net baseline and the variational network: any operator, any size, gradients everywhere."""

import copy

import pytest
import torch

from medrecon.datasets import TrainingBatch
from medrecon.errors import InputError, OperatorError, UsageError
from medrecon.models import ReconstructionModel, UNetBaseline, UnrolledNetwork, build_model
from medrecon.models.padded_unet import PaddedUNet
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, ParallelBeam2D

CLASSES = [UNetBaseline, UnrolledNetwork]


def draw(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def multi_coil(sets=1):
    maps = draw(1, sets, 3, 20, 14, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum((1, 2), keepdim=True).sqrt()
    mask = torch.arange(14).remainder(2).eq(0).expand(20, 14).clone()
    mask[:, 6:9] = True
    return CartesianMRI(mask, maps if sets > 1 else maps[:, 0])


OPERATORS = {
    "block-cs": (lambda: BlockCompressedSensing((1, 18, 13), 0.4, block_size=8), 1),
    "inpainting, odd": (lambda: Inpainting(draw(1, 9, 7) < 0.5), 1),
    "inpainting, colours": (lambda: Inpainting(draw(3, 16, 33) < 0.5), 3),
    "multi-coil": (multi_coil, 2),
    "two map sets": (lambda: multi_coil(2), 2),
    "ct, three slices": (lambda: ParallelBeam2D((3, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1),
}


def trained(cls, channels=1, **parameters):
    """A model away from its start, where all but the last layer of a network have no gradient."""
    torch.manual_seed(0)
    model = cls.from_config(cls.preset_config("tiny", image_channels=channels, parameters=parameters))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(operator, count=2):
    x = draw(count, *operator.image_shape, dtype=operator.image_dtype).abs().to(operator.image_dtype)
    with torch.no_grad():
        return TrainingBatch(operator(x), operator, x)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def plain(model):
    return {key: value for key, value in model.config.items() if not key.startswith("_")}


@pytest.mark.parametrize("cls", CLASSES)
class TestBoth:
    @pytest.mark.parametrize("name", OPERATORS)
    def test_any_operator(self, cls, name):
        build, channels = OPERATORS[name]
        data, model = batch(build()), trained(cls, channels)
        model.training_loss(data, "l1+ssim" if min(data.target.shape[2:]) > 6 else "l1").backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert bool(torch.isfinite(parameter.grad).all()), key
            assert bool(parameter.grad.any()), key
        with torch.no_grad():
            image = model(data.measurements, data.operator)
        assert image.shape == data.target.shape
        assert image.dtype == data.operator.image_dtype

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (9, 7), (31, 33), (32, 48)])
    def test_any_size(self, cls, size):
        model = trained(cls)
        model.training_loss(batch(Inpainting(torch.ones(1, *size)), 1)).backward()
        assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())

    @pytest.mark.parametrize("factor", [1e-8, 100.0])
    def test_units_of_data_and_operator(self, cls, factor):
        model, operator = trained(cls, 2), multi_coil()
        y = batch(operator).measurements
        with torch.no_grad():
            image = model(y, operator)
            assert relative(model(factor * y, operator) / factor, image) < 1e-4
            assert relative(model(factor * y, operator * factor), image) < 1e-4

    def test_a_sample_does_not_depend_on_its_neighbours(self, cls):
        model, operator = trained(cls, 2), multi_coil()
        y = batch(operator, 3).measurements * torch.tensor([1.0, 1e-3, 50.0]).reshape(3, 1, 1, 1)
        with torch.no_grad():
            whole = model(y, operator)
            for index in range(3):
                assert relative(whole[index], model(y[index : index + 1], operator)[0]) < 1e-4

    def test_a_map_set_is_an_image(self, cls):
        """Slices side by side give what each gives alone."""
        model = trained(cls, intensity=1.0)
        angles = torch.linspace(0, 3, 9)
        three = ParallelBeam2D((3, 15, 15), angles, detector_count=23)
        one = ParallelBeam2D((1, 15, 15), angles, detector_count=23)
        y = batch(three, 1).measurements
        with torch.no_grad():
            whole = model(y, three)
            for index in range(3):
                assert relative(whole[:, index], model(y[:, index : index + 1], one)[:, 0]) < 1e-4

    def test_round_trip(self, cls, tmp_path):
        model = trained(cls, 2)
        model.save(tmp_path)
        back = cls.load(tmp_path)
        assert back.settings.features == model.settings.features
        for key, value in model.state_dict().items():
            assert torch.equal(back.state_dict()[key], value), key
        data = batch(multi_coil())
        with torch.no_grad():
            assert torch.equal(back(*data[:2]), model.eval()(*data[:2]))
        other = next(c for c in CLASSES if c is not cls)
        with pytest.raises(InputError, match=f"describes a {cls.__name__}, expected {other.__name__}"):
            other.load(tmp_path)

    @pytest.mark.parametrize("loss", ["l1", "ssim", "l1+ssim"])
    def test_training_lowers_the_loss(self, cls, loss):
        torch.manual_seed(0)
        model, data = cls.from_preset("tiny", image_channels=2), batch(multi_coil(), 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        losses = []
        for _ in range(15):
            optimizer.zero_grad()
            value = model.training_loss(data, loss)
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        assert losses[-1] < 0.9 * losses[0]

    def test_presets(self, cls):
        sizes = {name: sum(p.numel() for p in cls.from_preset(name).parameters()) for name in ("tiny", "small", "base")}
        assert sizes["tiny"] < 20_000 < 100_000 < sizes["small"] < 500_000 < 5_000_000 < sizes["base"]
        assert plain(cls.from_preset("small")) == plain(cls())
        with pytest.raises(UsageError, match="no preset is called 'smal', there are base, small, tiny; did you mean"):
            cls.from_preset("smal")

    def test_other_images_are_refused(self, cls):
        with pytest.raises(OperatorError, match=f"{cls.__name__}: this one is for .* 3 real channels .* CartesianMRI"):
            trained(cls, 3)(batch(multi_coil()).measurements, multi_coil())

    @pytest.mark.parametrize("features", [[8] * 5, [8, 8, 8, 8, 8, 0], [8.5] * 6])
    def test_bad_features(self, cls, features):
        with pytest.raises(ValueError, match=r"features: expected six positive integers, got \["):
            cls(features=features)

    def test_deepcopy_and_half_precision(self, cls):
        model, data = copy.deepcopy(trained(cls, 2)), batch(multi_coil())
        wanted = model.training_loss(data).detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.training_loss(data)
        assert found.dtype == torch.float32
        assert float(found.detach()) == pytest.approx(float(wanted), rel=0.1)


def test_unet_follows_its_equation():
    model, operator = trained(UNetBaseline, 2, intensity=1.0).eval(), multi_coil()
    data = batch(operator)
    bound = float(operator.norm_bound())
    start = operator.adjoint(data.measurements) / bound**2
    channels = torch.cat([start.real, start.imag], 1)
    with torch.no_grad():
        wanted = channels + model.unet(channels)
        image = model(data.measurements, operator)
    assert relative(torch.cat([image.real, image.imag], 1), wanted) < 1e-5


def test_unet_consistent_with_the_data():
    mask = draw(16, 12) < 0.3
    operator = CartesianMRI(mask)
    y = batch(operator).measurements
    with torch.no_grad():
        residuals = [
            relative(operator(trained(UNetBaseline, 2, data_consistency=on)(y, operator)), y) for on in (True, False)
        ]
    assert residuals[0] < 1e-5 < 1e-2 < residuals[1]


def test_unrolled_follows_its_equation():
    model, operator = trained(UnrolledNetwork, intensity=1.0).eval(), Inpainting(draw(1, 18, 13) < 0.5) * 3.0
    data = batch(operator)
    matrix = operator * (1 / 3.0)
    y = data.measurements / 3.0
    x = matrix.initial(y)
    with torch.no_grad():
        for eta, network in zip(model.eta, model.networks, strict=True):
            x = x - eta * matrix.adjoint(matrix(x) - y) - network(x)
        assert relative(model(data.measurements, operator), x) < 1e-5


def test_untrained_network_descends():
    """With R = 0 the cascades are gradient steps, which explain the data better and better."""
    operator = multi_coil()
    y = batch(operator).measurements
    with torch.no_grad():
        residuals = [relative(operator(UnrolledNetwork(2, count, [4] * 6)(y, operator)), y) for count in (1, 3, 9)]
    assert residuals == sorted(residuals, reverse=True)


def test_checkpointing_changes_no_gradient():
    model, data = trained(UnrolledNetwork, 2), batch(multi_coil())
    calls = []
    model.networks[0].register_forward_pre_hook(lambda *_: calls.append(1))

    def gradients(memory):
        model.memory = memory
        calls.clear()
        return torch.autograd.grad(model.training_loss(data), list(model.parameters())), len(calls)

    wanted, once = gradients("none")
    found, twice = gradients("checkpoint")
    assert (once, twice) == (1, 2)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        assert model(*data[:2]).isfinite().all()
    model.memory = "min"
    with pytest.raises(UsageError, match="memory must be one of none, checkpoint, got 'min'"):
        model.training_loss(data)


def test_unrolled_needs_a_cascade():
    with pytest.raises(ValueError, match="cascades must be at least 1, got 0"):
        UnrolledNetwork(cascades=0)


def test_padding_does_not_move_the_image():
    """What lies inside depends on the border only through the statistics of the norm."""
    torch.manual_seed(0)
    network = PaddedUNet(1, [4] * 6)
    torch.nn.init.normal_(network.unet.final_conv.weight)
    x = draw(1, 1, 32, 48)
    assert torch.equal(network(x), network.unet(x))
    assert network(x[..., :31, :45]).shape == (1, 1, 31, 45)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        ReconstructionModel()


@pytest.mark.parametrize("name", ["idm", "unet", "varnet"])
def test_nothing_gives_nothing(name):
    torch.manual_seed(0)
    model = build_model(name, image_channels=2, preset="tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    operator = CartesianMRI(torch.rand(24, 20) < 0.5)
    data = operator(torch.randn(2, 1, 24, 20, dtype=torch.complex64)) * torch.tensor([0.0, 1e-5]).reshape(2, 1, 1, 1)
    images = model(data, operator)
    assert not images[0].any()
    assert images[1].abs().max() > 0
    batch = TrainingBatch(data, operator, torch.zeros(2, 1, 24, 20, dtype=torch.complex64))
    loss = model.training_loss(batch)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
