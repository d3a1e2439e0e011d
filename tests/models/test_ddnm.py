"""DDNM: exact denoisers of Gaussian images, whose posterior is known, and the step of diffusers."""

import itertools
import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from medrecon.errors import UsageError
from medrecon.models.ddnm import DDNM, noise_weights, time_travel
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.sampling import denoise
from medrecon.operators import BlockCompressedSensing, Inpainting

SIDE = 16
COUNT = 96


class GaussianPrior:
    """White noise through a filter: spectrum ∝ (1 + (f/.06)²)^-1.5, mean variance .25, denoised exactly."""

    def __init__(self):
        f = torch.fft.fftfreq(SIDE).double()
        spectrum = (1 + (f[:, None] ** 2 + f[None] ** 2) / 0.06**2) ** -1.5
        self.spectrum = 0.25 * spectrum / spectrum.mean()
        self.alpha_bars = DDPMScheduler().alphas_cumprod.double()

    def filtered(self, x, gain):
        return torch.fft.ifft2(torch.fft.fft2(x) * gain).real

    def draw(self, count, seed):
        noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return self.filtered(noise, self.spectrum.sqrt())

    def predict_noise(self, x, time):
        bar = self.alpha_bars[time]
        clean = self.filtered(x, bar.sqrt() * self.spectrum / (bar * self.spectrum + 1 - bar))
        return (x - bar.sqrt() * clean) / (1 - bar).sqrt()

    def covariance(self):
        unit = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
        return self.filtered(unit, self.spectrum).reshape(SIDE**2, SIDE**2)


def inpainting():
    mask = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < 0.3
    return Inpainting(mask)


def compressed_sensing():
    return BlockCompressedSensing((1, SIDE, SIDE), 0.25, block_size=SIDE)


OPERATORS = {"inpainting": inpainting, "block CS": compressed_sensing}


def measured(name, noise):
    operator, prior = OPERATORS[name](), GaussianPrior()
    truth = prior.draw(COUNT, 1)
    y = operator(truth)
    y = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    return prior, operator, truth, y


def posterior(prior, operator, y, noise):
    """Return the exact posterior means, and the mean posterior variance of a pixel."""
    unit = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    matrix = operator(unit).flatten(1).T
    covariance = prior.covariance()
    system = matrix @ covariance @ matrix.T + (noise**2 + 1e-9) * torch.eye(len(matrix), dtype=torch.float64)
    gain = torch.linalg.solve(system, matrix @ covariance).T
    means = (y.flatten(1) @ gain.T).reshape(-1, 1, SIDE, SIDE)
    return means, float(torch.diagonal(covariance - gain @ matrix @ covariance).mean())


def solve(prior, operator, y, *, noise=0.0, seed=0, solver=None):
    problem = InverseProblem(y, operator, operator.initial(y), noise)
    return (solver or DDNM())(prior, problem, torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
class TestExactGaussian:
    def test_samples_of_the_posterior(self, name):
        prior, operator, truth, y = measured(name, 0.0)
        means, variance = posterior(prior, operator, y, 0.0)
        draws = torch.stack([solve(prior, operator, y, seed=seed) for seed in range(12)])
        assert float((operator(draws[0]) - y).abs().max()) < 1e-6
        exact = float((means - truth).square().mean())
        assert float((draws.mean(0) - truth).square().mean()) < 1.35 * exact
        assert 0.6 < float((draws[0] - means).square().mean()) / variance < 1.1

    def test_what_the_simplified_code_does_fails(self, name):
        """All noise shrunk by √(1 - ᾱ²), with ᾱ for its root: the samples collapse."""
        prior, operator, _, y = measured(name, 0.0)
        means, variance = posterior(prior, operator, y, 0.0)
        x = solve(prior, operator, y, solver=simplified)
        assert float((x - means).square().mean()) / variance < 0.4

    def test_without_the_data_it_is_another_image(self, name):
        prior, operator, _, y = measured(name, 0.0)
        means, variance = posterior(prior, operator, y, 0.0)
        blind = solve(prior, Inpainting(torch.zeros(1, SIDE, SIDE)), torch.zeros(COUNT, 1, SIDE, SIDE).double())
        assert float((blind - means).square().mean()) / variance > 2

    def test_noise_is_heeded(self, name):
        prior, operator, truth, y = measured(name, 0.3)
        aware, trusting = (solve(prior, operator, y, noise=noise) for noise in (0.3, 0.0))
        assert float((aware - truth).square().mean()) < 0.85 * float((trusting - truth).square().mean())


def simplified(prior, problem, generator):
    bars, x = prior.alpha_bars, problem.draw_noise(generator)
    for time in range(990, -1, -10):
        noise = prior.predict_noise(x, time)
        clean = problem.drawn(denoise(x, noise, bars[time]))
        bar = bars[time - 10] if time else bars.new_ones(())
        fresh = (1 - 0.85**2) ** 0.5 * noise + 0.85 * problem.draw_noise(generator)
        x = bar.sqrt() * clean + (1 - bar**2) * fresh
    return x


class TestSteps:
    def test_posterior_step_is_that_of_diffusers(self):
        """Algorithm 1 of the paper is the DDPM posterior with the corrected image in place of the predicted one."""
        scheduler = DDPMScheduler(prediction_type="sample", clip_sample=False, variance_type="fixed_small")
        scheduler.set_timesteps(1000)
        bars = scheduler.alphas_cumprod.double()
        x, clean = (torch.randn(2, 1, 5, 4, dtype=torch.float64) for _ in range(2))
        time = 400
        alpha, before, bar = bars[time] / bars[time - 1], bars[time - 1], bars[time]
        mean = before.sqrt() * (1 - alpha) / (1 - bar) * clean + alpha.sqrt() * (1 - before) / (1 - bar) * x
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        ours = mean + ((1 - before) / (1 - bar) * (1 - alpha)).sqrt() * noise
        theirs = scheduler.step(clean, time, x, generator=torch.Generator().manual_seed(0)).prev_sample
        assert torch.allclose(ours, theirs, atol=1e-6)

    def test_deterministic_step_is_ddim(self):
        """η = 0 from a known start, written out."""
        prior, operator, _, y = measured("inpainting", 0.0)
        found = solve(prior, operator, y, solver=DDNM(steps=4, eta=0.0))
        x = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
        bars = prior.alpha_bars
        for time, after in ((750, 500), (500, 250), (250, 0), (0, None)):
            bar = bars[after] if after is not None else torch.ones(())
            noise = prior.predict_noise(x, time)
            clean = (x - (1 - bars[time]).sqrt() * noise) / bars[time].sqrt()
            clean = torch.where(operator.mask > 0, y, clean)
            x = bar.sqrt() * clean + (1 - bar).sqrt() * noise
        assert torch.allclose(found, x, atol=1e-10)

    @pytest.mark.parametrize(("steps", "length", "repeats"), [(100, 5, 3), (100, 1, 1), (100, 10, 3), (12, 4, 2)])
    def test_time_travel(self, steps, length, repeats):
        pairs = list(time_travel(steps, length, repeats))
        down = [pair for pair in pairs if pair[1] < pair[0]]
        assert len(down) == steps + (steps // length - 1) * (repeats - 1) * length
        assert pairs[0][0] == steps - 1
        assert pairs[-1] == (0, -1)
        assert all(before - after in (1, -length) for before, after in pairs)
        assert all(first[1] == second[0] for first, second in itertools.pairwise(pairs))

    def test_noise_weights(self):
        """The noise of the data and what is filled up make 1 - ᾱ together; too much of it is shrunk to that."""
        for bar, noise in ((0.3, 0.1), (0.99, 0.05), (0.99, 0.3), (0.5, 2.0)):
            share, gain = noise_weights(bar, noise)
            total = (math.sqrt(bar) * share * noise) ** 2 + gain**2 * (1 - bar)
            assert total == pytest.approx(1 - bar)
            assert 0 <= share <= 1
        assert noise_weights(0.7, 0.0) == (1.0, 1.0)
        assert noise_weights(1.0, 0.0) == (1.0, 1.0)
        assert noise_weights(1.0, 0.1) == (0.0, 0.0)

    @pytest.mark.parametrize("wrong", [{"steps": 0}, {"eta": 1.5}, {"travel": 0}, {"repeats": 0}])
    def test_wrong_numbers(self, wrong):
        with pytest.raises(UsageError, match="DDNM"):
            DDNM(**wrong)

    def test_more_steps_than_times(self):
        prior, operator, _, y = measured("inpainting", 0.0)
        with pytest.raises(UsageError, match="2000 steps are more than the 1000"):
            solve(prior, operator, y, solver=DDNM(steps=2000))
