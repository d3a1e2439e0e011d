"""deepinv's samplers of the posterior on our priors and operators, for comparison; the package is optional."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medrecon.errors import UsageError
from medrecon.models.ddnm import NoisePredictor
from medrecon.models.injector import network_images, operator_images
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.sampling import denoise
from medrecon.optimization.convergence import Progress


@dataclass(frozen=True)
class DeepinvSampler:
    """DPS (Chung et al., ICLR 2023) or DiffPIR (Zhu et al., CVPRW 2023) as ``deepinv.sampling`` has them.

    Its images lie in [0, 1], so u = 2 x - 1, and complex measurements become real pairs.

    Parameters
    ----------
    kind
        "dps" differentiates the data residual through the network; "diffpir" alternates with a proximal step.
    steps
        Network calls.
    weight
        Of the data, DPS only.
    """

    kind: Literal["dps", "diffpir"]
    steps: int = 100
    weight: float = 1.0

    def __call__(
        self,
        prior: NoisePredictor,
        problem: InverseProblem,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return a sample, (B', C, H, W).

        Raises
        ------
        UsageError
            Where deepinv is not installed.
        """
        deepinv = import_deepinv(self.kind)
        physics, y = _physics(deepinv, problem)
        network = _denoiser(deepinv, prior, self.steps, progress)
        start = problem.draw_noise(generator)
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        random = torch.Generator(start.device)
        if self.kind == "dps":
            sampler = deepinv.sampling.DPS(network, num_steps=self.steps, weight=self.weight, rng=random)
            with torch.enable_grad():
                images = sampler(y, physics, x_init=start, seed=seed)
        else:
            sigma = max(problem.noise / 2, 1e-3)  # deepinv divides by it
            sampler = deepinv.sampling.DiffPIR(
                network, deepinv.optim.data_fidelity.L2(), sigma=sigma, max_iter=self.steps
            )
            images = sampler(y, physics, seed=seed, x_init=(problem.start() + 1) / 2)
        return (2 * images - 1).detach().to(start)


def import_deepinv(method: str) -> Any:  # noqa: ANN401 (an optional package)
    """Return the package.

    Raises
    ------
    UsageError
        Where it is not installed, or cannot be imported.
    """
    try:
        import deepinv
        import deepinv.optim
        import deepinv.sampling
    except ImportError as error:
        raise UsageError(f"{method}: needs deepinv ({error}); pip install deepinv, or use --method ddnm") from error
    return deepinv


def _physics(deepinv: Any, problem: InverseProblem) -> tuple[Any, Tensor]:  # noqa: ANN401
    """Return deepinv's physics of x = (u + 1)/2 and the measurements that it explains, as real tensors."""
    operator = problem.operator

    def forward(x: Tensor) -> Tensor:
        data = operator(operator_images(x.to(problem.initial.dtype), operator))
        return torch.view_as_real(data) if data.is_complex() else data

    def adjoint(y: Tensor) -> Tensor:
        y = y.to(problem.initial.dtype)
        images = operator.adjoint(torch.view_as_complex(y.contiguous()) if problem.y.is_complex() else y)
        return network_images(images, problem.shape[1])

    ones = torch.ones_like(problem.initial)
    y = torch.view_as_real(problem.y) if problem.y.is_complex() else problem.y
    physics = deepinv.physics.LinearPhysics(
        A=lambda x, **_: 2 * forward(x),
        A_adjoint=lambda y, **_: 2 * adjoint(y),
        img_size=tuple(problem.shape[1:]),
        noise_model=deepinv.physics.GaussianNoise(sigma=max(problem.noise, 1e-3)),
    )
    return physics, y + forward(ones)


def _denoiser(deepinv: Any, prior: NoisePredictor, steps: int, progress: Progress | None) -> nn.Module:  # noqa: ANN401
    """Return D(x, σ) in [0, 1] by the noise prediction at the time whose noise level is the nearest."""
    bars = prior.alpha_bars
    levels = ((1 - bars) / bars).sqrt()
    calls = [0]

    class Denoiser(deepinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:  # noqa: ANN401
            level = 2 * float(torch.as_tensor(sigma).flatten()[0])
            time = int((levels.log() - math.log(max(level, 1e-6))).abs().argmin())
            bar = bars[time].to(x)
            noisy = bar.sqrt() * (2 * x - 1)
            clean = denoise(noisy, prior.predict_noise(noisy.to(bars.dtype), time).to(x), bar)
            calls[0] += 1
            if progress is not None:
                progress(min(calls[0], steps), steps)
            return (clean + 1) / 2

    module: nn.Module = Denoiser()
    return module
