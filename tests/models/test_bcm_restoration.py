"""Sweeps with a flow map: the exact one of Gaussian images, whose posterior is known, and that of a U-Net."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.models.bcm import BidirectionalConsistencyModel
from medrecon.models.bcm_restoration import BCMSweeps, inpaint
from medrecon.models.bcm_scheduler import BCMScheduler
from medrecon.models.inverse_problem import InverseProblem
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, ParallelBeam2D

SIDE = 16


class GaussianPrior:
    """White noise through a filter: spectrum ∝ (1 + (f/.06)²)^-1.5, mean variance .25, and its flow map."""

    def __init__(self):
        self.scheduler = BCMScheduler()
        f = torch.fft.fftfreq(SIDE).double()
        spectrum = (1 + (f[:, None] ** 2 + f[None] ** 2) / 0.06**2) ** -1.5
        self.spectrum = 0.25 * spectrum / spectrum.mean()
        self.calls = []

    def filtered(self, x, gain):
        return torch.fft.ifft2(torch.fft.fft2(x) * gain).real

    def draw(self, count):
        noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return self.filtered(noise, self.spectrum.sqrt())

    def f(self, x, t, u):
        self.calls.append((float(t[0]), float(u[0])))
        t, u = (time.reshape(-1, 1, 1, 1) for time in (t, u))
        return self.filtered(x, ((self.spectrum + u**2) / (self.spectrum + t**2)).sqrt())

    def posterior(self, operator, y, noise):
        unit = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
        matrix, covariance = operator(unit).flatten(1).T, self.filtered(unit, self.spectrum).reshape(SIDE**2, -1)
        system = matrix @ covariance @ matrix.T + (noise**2 + 1e-9) * torch.eye(len(matrix), dtype=torch.float64)
        gain = torch.linalg.solve(system, matrix @ covariance).T
        variance = torch.diagonal(covariance - gain @ matrix @ covariance).mean()
        return (y.flatten(1) @ gain.T).reshape(-1, 1, SIDE, SIDE), float(variance)


def mask():
    return torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.3


OPERATORS = {
    "inpainting": lambda: Inpainting(mask()),
    "block CS": lambda: BlockCompressedSensing((1, SIDE, SIDE), 0.25, block_size=SIDE),
}


def measured(name, noise=0.0):
    prior, operator = GaussianPrior(), OPERATORS[name]()
    truth = prior.draw(48)
    y = operator(truth)
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    return prior, operator, truth, y


def solved(prior, operator, y, sampler, noise=0.0, seed=0):
    problem = InverseProblem(y, operator, operator.initial(y), noise)
    return sampler(prior, problem, torch.Generator().manual_seed(seed))


def varied(sweeps, renoise):
    """Return sweeps whose samples are as different as those of the posterior."""
    return BCMSweeps(sweeps, renoise, highest=1.0, lowest=0.2)


def error(found, truth):
    return float((found - truth).square().mean())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("renoise", ["amplify", "gaussian"])
class TestExactFlow:
    def test_data_are_explained_and_the_rest_comes_near(self, name, renoise):
        prior, operator, truth, y = measured(name)
        means, variance = prior.posterior(operator, y, 0.0)
        before, few, many = (
            solved(prior, operator, y, varied(sweeps, renoise)) if sweeps else operator.pinv(y)
            for sweeps in (0, 16, 64)
        )
        assert float((operator(many) - y).abs().max()) < 1e-5
        assert error(many, truth) < error(few, truth) < 0.85 * error(before, truth)
        assert error(few, means) < 2 * variance
        assert 0.8 < error(many, means) / variance < 1.3

    def test_the_mean_of_draws_is_better(self, name, renoise):
        prior, operator, truth, y = measured(name)
        draws = torch.stack([solved(prior, operator, y, varied(16, renoise), seed=seed) for seed in range(4)])
        assert error(draws.mean(0), truth) < 0.7 * error(draws[0], truth)

    def test_noise_is_heeded(self, name, renoise):
        prior, operator, truth, y = measured(name, 0.5)
        means, variance = prior.posterior(operator, y, 0.5)
        aware, trusting = (
            torch.stack([solved(prior, operator, y, varied(16, renoise), noise, seed) for seed in range(4)])
            for noise in (0.5, 0.0)
        )
        assert error(aware.mean(0), truth) < 0.9 * error(trusting.mean(0), truth)
        assert 0.8 < error(aware[0], means) / variance < 1.1


class TestSweeps:
    def test_calls_and_progress(self):
        prior, operator, _, y = measured("inpainting")
        problem, told = InverseProblem(y, operator, operator.initial(y)), []
        sweeps = BCMSweeps(2, "amplify", highest=1.0, lowest=0.5, ratio=0.1)
        sweeps(prior, problem, None, lambda *done: told.append(done))
        assert told == [(2, 4), (4, 4)]
        assert prior.calls == [pytest.approx(pair) for pair in ((0.1, 1.0), (1.0, 0.002), (0.05, 0.5), (0.5, 0.002))]
        prior.calls.clear()
        told.clear()
        BCMSweeps(3, "gaussian")(prior, problem, None, lambda *done: told.append(done))
        assert told == [(1, 3), (2, 3), (3, 3)]
        assert [u for _, u in prior.calls] == [0.002] * 3

    def test_one_seed_one_image(self):
        prior, operator, _, y = measured("block CS")
        first, again, other = (solved(prior, operator, y, BCMSweeps(2), seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)

    def test_inpainting_of_the_paper(self):
        """The same loop, on images, with a mask in place of an operator."""
        prior, operator, _, y = measured("inpainting")
        sampler = BCMSweeps(3, "amplify")
        found = inpaint(prior.f, y, mask(), sampler.times(), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(found, solved(prior, operator, y, sampler), atol=1e-12)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"sweeps": 0}, "sweeps starts at 1, got 0"),
            ({"renoise": "more"}, "renoise is amplify or gaussian, got 'more'"),
            ({"lowest": 2.0}, "expected 0 < lowest <= highest, got 2.0 and 0.5"),
            ({"lowest": 0.0}, "expected 0 < lowest"),
            ({"ratio": 1.0}, "expected 0 < ratio < 1"),
            ({"start": -1.0}, "start >= 0"),
        ],
    )
    def test_wrong_numbers(self, wrong, message):
        with pytest.raises(UsageError, match=f"BCM: .*{message}"):
            BCMSweeps(**wrong)

    @pytest.mark.parametrize("wrong", [{"highest": 100.0}, {"lowest": 0.003}])
    def test_times_that_the_model_does_not_have(self, wrong):
        prior, operator, _, y = measured("inpainting")
        with pytest.raises(UsageError, match=r"BCM: times from .* leave those of the model, 0.002 to 80"):
            solved(prior, operator, y, BCMSweeps(**wrong))


def lines(width):
    return torch.arange(width) % 3 < 1


def maps(coils, height, width):
    found = torch.randn(coils, height, width, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    return found / found.abs().square().sum(0).sqrt()


ANY = {
    "single-coil MRI": lambda: CartesianMRI(lines(20).expand(24, 20)),
    "multi-coil MRI": lambda: CartesianMRI(lines(20).expand(24, 20), maps(3, 24, 20)),
    "parallel beam CT": lambda: ParallelBeam2D((1, 24, 20), torch.linspace(0, 3, 9)),
    "block CS": lambda: BlockCompressedSensing((1, 24, 20), 0.3, block_size=8),
    "inpainting": lambda: Inpainting(torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(1)) < 0.5),
}


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_any_operator(name, noise):
    operator = ANY[name]()
    torch.manual_seed(0)
    channels = 2 if operator.image_dtype.is_complex else 1
    model = BidirectionalConsistencyModel.from_preset("tiny", image_channels=channels).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    x = torch.rand(2, *operator.image_shape).to(operator.image_dtype)
    y = operator(x)
    for renoise in ("amplify", "gaussian"):
        found = model.reconstruct(
            y, operator, BCMSweeps(3, renoise), noise=noise, generator=torch.Generator().manual_seed(0)
        )
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert bool(torch.isfinite(found.abs()).all())
        residual = float((operator(found) - y).abs().max())
        if operator.pinv_kind == "exact" and not noise:
            assert residual < 1e-5 * float(y.abs().max())
        assert residual < float(y.abs().max())
