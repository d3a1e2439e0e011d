"""The method ``ddnm``: draws of a prior, their mean and deviation, on any operator."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.models.ddpm import DiffusionPrior
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, ParallelBeam2D
from medrecon.operators.scaling import energy_median
from medrecon.optimization.total_variation import total_variation
from medrecon.reconstructors import available_methods, make_method
from medrecon.simulation import brain_phantom


def saved(folder, channels):
    """An untrained prior whose last layer is not zero."""
    torch.manual_seed(0)
    model = DiffusionPrior.from_preset("tiny", image_channels=channels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("priors")
    return {channels: saved(base / str(channels), channels) for channels in (1, 2)}


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def multi_coil():
    maps = draw(3, 20, 14, dtype=torch.complex64)
    mask = torch.arange(14).remainder(2).eq(0).expand(20, 14)
    return CartesianMRI(mask, maps / maps.abs().square().sum(0).sqrt())


OPERATORS = {
    "one coil": (lambda: CartesianMRI(torch.rand(17, 12) < 0.5, image_shape=(17, 12)), 2, 1e-5),
    "multi-coil": (multi_coil, 2, 0.3),
    "block CS": (lambda: BlockCompressedSensing((1, 18, 13), 0.4, block_size=8), 1, 1e-5),
    "inpainting": (lambda: Inpainting(draw(1, 9, 7) < 0.5), 1, 1e-5),
    "CT": (lambda: ParallelBeam2D((1, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1, 0.5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_any_operator(folders, name):
    build, channels, bound = OPERATORS[name]
    torch.manual_seed(0)
    operator = build()
    x = draw(2, *operator.image_shape, dtype=operator.image_dtype).abs().to(operator.image_dtype)
    y = operator(x)
    calls = []
    method = make_method("ddnm", {"checkpoint": folders[channels], "steps": 8})
    image = method(y, operator, progress=lambda done, steps: calls.append((done, steps)))
    assert image.shape == x.shape
    assert image.dtype == operator.image_dtype
    assert float((operator(image) - y).norm() / y.norm()) < bound
    assert calls[-1] == (8, 8)


def test_draws(folders):
    operator = Inpainting(draw(1, 9, 7) < 0)
    y = operator(draw(2, 1, 9, 7).abs())
    method = make_method("ddnm", {"checkpoint": folders[1], "steps": 5, "samples": 3})
    draws = method.draws(y, operator, generator=torch.Generator().manual_seed(4))
    assert draws.shape == (3, 2, 1, 9, 7)
    assert torch.equal(method(y, operator, generator=torch.Generator().manual_seed(4)), draws.mean(0))
    unseen = operator.mask[0] == 0
    deviation = draws.std(0)
    assert bool((deviation[:, unseen] > 0).all())
    assert float(deviation[:, ~unseen].max()) < 1e-5
    other = method(y, operator, generator=torch.Generator().manual_seed(5))
    assert not torch.equal(other, draws.mean(0))
    assert torch.equal(method(y, operator), method(y, operator))


def test_brightness_is_estimated_once_for_all_draws(folders, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(options["name"])
        return total_variation(*arguments, **options)

    monkeypatch.setattr("medrecon.models.prior.total_variation", counted)
    operator = Inpainting(draw(1, 9, 7) < 0)
    make_method("ddnm", {"checkpoint": folders[1], "steps": 2, "samples": 3})(
        operator(draw(2, 1, 9, 7).abs()), operator
    )
    assert calls == ["DiffusionPrior, intensity"]


def test_no_image_depends_on_its_neighbours(folders):
    operator = Inpainting(draw(1, 9, 7) < 0)
    y = operator(draw(2, 1, 9, 7).abs())
    method = make_method("ddnm", {"checkpoint": folders[1], "steps": 5})
    both, alone = method(y, operator), method(y[1:], operator)
    assert torch.allclose(both[1:], alone, atol=1e-5)
    empty = method(torch.cat((0 * y[:1], y[1:])), operator)
    assert float(empty[0].abs().max()) == 0
    for factor in (1e-12, 1e6):
        assert torch.allclose(method(y * factor, operator) / factor, both, atol=1e-4)


@pytest.mark.parametrize("kind", ["block CS", "inpainting", "one coil"])
def test_a_prior_sees_images_of_the_brightness_it_was_trained_on(folders, kind):
    """Whatever the operator: x_init of block CS has a quarter of it."""
    prior = DiffusionPrior.load(folders[2])
    shape = (48, 48)
    image = brain_phantom(1, shape, torch.Generator().manual_seed(0)).to(torch.complex64)[:, None]
    operator = {
        "block CS": lambda: BlockCompressedSensing((1, *shape), 0.25, block_size=12, dtype=torch.complex64),
        "inpainting": lambda: Inpainting(draw(1, *shape) < 0, dtype=torch.complex64),
        "one coil": lambda: CartesianMRI(draw(*shape) < 0.3, image_shape=shape),
    }[kind]()
    seen = []

    def sampler(_prior, problem, _generator, _progress):
        seen.append(problem.y)
        return problem.initial

    y = operator(image)
    prior.reconstruct(y, operator, sampler)
    unit = float(y.norm() / seen[0].norm())
    assert unit == pytest.approx(float(energy_median(image)) * prior.settings.peak, rel=0.2)


def test_settings(folders):
    assert "ddnm" in available_methods()
    method = make_method("ddnm", {"checkpoint": folders[1], "samples": 2, "eta": 0.5})
    settings = method.settings(Inpainting(torch.ones(1, 4, 4)))
    assert settings["samples"] == 2
    assert settings["eta"] == 0.5
    assert settings["checkpoint"] == "1"
    assert len(settings["sha256"]) == 64


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"samples": 0}, "samples starts at 1, got 0"),
        ({"noise": -0.1}, "noise is a share of the brightest pixels, 0 to 1, got -0.1"),
        ({"eta": 2.0}, "eta lies between 0 and 1, got 2.0"),
        ({"steps": 0}, "start at 1, got 0"),
    ],
)
def test_mistakes(folders, parameters, message):
    with pytest.raises(UsageError, match=message):
        make_method("ddnm", {"checkpoint": folders[1], **parameters})
