"""Reconstruction and generation with the Directly Denoising Diffusion Model: an estimate, improved a few times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.models.estimates import Estimator
from medrecon.models.inverse_problem import InverseProblem
from medrecon.optimization.convergence import Progress


class DirectDenoiser(Protocol):
    """A model that estimates clean images, drawn to the data."""

    @property
    def scheduler(self) -> DDDMScheduler:
        """The noise process."""

    def start(self, problem: InverseProblem, generator: torch.Generator | None) -> Tensor:
        """Return x_0^(0), the estimate before the first, (B', C, H, W)."""

    def estimator(self, problem: InverseProblem, start: Tensor) -> Estimator:
        """Return f(x_0^est, x_t, t | x_0^(0)) with data consistency."""


@dataclass(frozen=True)
class DDDMSteps:
    r"""A few improvements of an estimate, all at the strongest noise.

    .. math:: e_0 = x_0^{(0)}, \qquad
        e_n = \hat f(e_{n-1}, x_T, T \mid A^+ y), \quad \hat f = f - λ A^+ (A f - y), \qquad n = 1 … N

    with one and the same noise x_T (arXiv:2405.13540, algorithm 2, with data consistency within).

    Parameters
    ----------
    steps
        N, network calls.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        """Check the number."""
        if self.steps < 1:
            raise UsageError(f"DDDMSteps: steps starts at 1, got {self.steps}")

    def __call__(
        self,
        prior: DirectDenoiser,
        problem: InverseProblem,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return images that explain the data, (B', C, H, W)."""
        start = prior.start(problem, generator)
        noise = prior.scheduler.init_noise_sigma * problem.draw_noise(generator)
        return improved(prior.estimator(problem, start), start, noise, prior.scheduler, self.steps, progress)


def improved(
    f: Estimator,
    start: Tensor,
    noise: Tensor,
    scheduler: DDDMScheduler,
    steps: int,
    progress: Progress | None = None,
) -> Tensor:
    """Return e_N of e_n = f(e_{n-1}, x_T, T), like ``start``.

    Parameters
    ----------
    f
        The estimator, with whatever is done to each estimate.
    start
        e_0, (B, ...).
    noise
        x_T, like it.
    scheduler
        The noise process.
    steps
        N.
    progress
        Called with (network calls done, network calls in all).
    """
    estimate, times = start, scheduler.last_times(len(start), start.device)
    for step in range(steps):
        estimate = f(estimate, noise, times)
        if progress is not None:
            progress(step + 1, steps)
    return estimate


@torch.no_grad()
def generate(
    f: Estimator,
    shape: Sequence[int],
    scheduler: DDDMScheduler,
    *,
    steps: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Return images made of noise alone, (B, C, H, W) in [-1, 1].

    e_n = clamp(f(e_{n-1}, x_T, T), -1, 1) from e_0 ~ N(0, I) and one x_T (arXiv:2405.13540, algorithm 2). Nothing
    in the training loss asks for more than the mean of all images there: its optimum at t = T is the conditional
    mean, given noise. Sharp images of few steps are the authors' claim, and were not reproduced.

    Parameters
    ----------
    f
        The estimator.
    shape
        (B, C, H, W).
    scheduler
        The noise process.
    steps
        Network calls.
    generator
        Of the noise.
    device
        Of the network; that of the generator by default.
    progress
        Called with (network calls done, network calls in all).
    """
    place = torch.device("cpu") if generator is None else generator.device
    start, noise = (torch.randn(tuple(shape), generator=generator, device=place).to(device or place) for _ in range(2))

    def clipped(estimate: Tensor, x: Tensor, times: Tensor) -> Tensor:
        return f(estimate, x, times).clamp(-1, 1)

    return improved(clipped, start, scheduler.init_noise_sigma * noise, scheduler, steps, progress)
