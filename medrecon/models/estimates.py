"""Where the estimate of a training image comes from that the Directly Denoising Diffusion Model improves on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from medrecon.datasets.source import Source
from medrecon.errors import UsageError
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.operators.solvers import per_sample

Estimator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""f(x_0^est, x_t, t): an estimate (B, ...), noisy images like it and times (B,) to a better estimate."""


class EstimatePolicy(Protocol):
    """What gives :func:`~medrecon.models.dddm_loss.dddm_loss` its estimates."""

    def contexts(
        self,
        f: Estimator,
        images: Tensor,
        start: Tensor,
        times: Tensor,
        scheduler: DDDMScheduler,
        sources: Sequence[Source],
    ) -> Tensor:
        """Return x_0^est, (B, ...), without gradient; random numbers are of torch's default generator."""

    def keep(self, estimates: Tensor, sources: Sequence[Source]) -> None:
        """Take note of what the network has just made of them."""


@dataclass(frozen=True)
class RecomputedEstimate:
    r"""Estimates made anew from the same image with at least as much noise; nothing is stored.

    .. math::
        x_0^{est} = \begin{cases} x_0^{(0)} & \text{with probability } p \\
            f(x_0^{(0)}, x_{t_2}, t_2), \quad t_2 = \max(t, t'), \; t' \sim U\{0 … T - 1\} & \text{else} \end{cases}

    with fresh noise in x_{t_2}: what the network meets in use, where x_0^{(0)} comes first and its own estimates
    follow. It costs one call without gradient, and works with any augmentation. A stored estimate is a function of
    the training image and tells of it more and more; these tell no more than x_{t_2} does.

    Parameters
    ----------
    start_share
        p; 1 gives x_0^{(0)} always and saves the call.
    """

    start_share: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.start_share <= 1:
            raise UsageError(f"RecomputedEstimate: start_share lies between 0 and 1, got {self.start_share}")

    @torch.no_grad()
    def contexts(
        self,
        f: Estimator,
        images: Tensor,
        start: Tensor,
        times: Tensor,
        scheduler: DDDMScheduler,
        sources: Sequence[Source],  # noqa: ARG002 (each image anew)
    ) -> Tensor:
        """Return x_0^est, (B, ...)."""
        if self.start_share == 1:
            return start
        earlier = torch.maximum(times, scheduler.draw_times(len(images), images.device))
        found = f(start, scheduler.add_noise(images, torch.randn_like(images), earlier), earlier)
        return mixed(found, start, self.start_share)

    def keep(self, estimates: Tensor, sources: Sequence[Source]) -> None:
        """Do nothing."""


def mixed(estimates: Tensor, start: Tensor, share: float) -> Tensor:
    """Return estimates of which each sample is, with a probability, x_0^(0) instead."""
    chosen = torch.rand(len(estimates), device=estimates.device) < share
    return torch.where(per_sample(chosen, estimates), start, estimates)
