"""Zero-shot reconstruction with a flow map: down to an image, to the data, a little up again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.models.bcm_sampling import FIRST_NOISE, follow
from medrecon.models.bcm_scheduler import BCMScheduler, FlowMap
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.sampling import white_noise
from medrecon.optimization.convergence import Progress

Renoise = Literal["amplify", "gaussian"]
"""See :class:`BCMSweeps`."""


class FlowPrior(Protocol):
    """A flow map of images in [-1, 1]."""

    @property
    def scheduler(self) -> BCMScheduler:
        """σ_min and σ_max."""

    def f(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Return x_u, like x; t and u are (B,)."""


@dataclass(frozen=True)
class BCMSweeps:
    r"""Sweeps of a bidirectional consistency model, for any operator.

    From :math:`x = A^+ y + (I - A^+ A) ε_0 z`, for times τ_1 > … > τ_k and ε_i = r τ_i,

    .. math::
        v = f(x + ε_i z, ε_i, τ_i), \qquad \hat x = f(v, τ_i, σ_{min}), \qquad
        x = \hat x - λ_i A^+ (A \hat x - y), \quad λ_i = τ_i^2 / (τ_i^2 + σ_y^2).

    λ = 1 for exact data; for noisy ones :math:`\hat x`, uncertain by about τ_i, and the data are weighed against each
    other. With "gaussian" it is :math:`v = x + τ_i z`, as for a consistency model; amplified noise leaves more of x as
    it was. (Inpainting with a bidirectional consistency model, arXiv:2403.18035, section 4.4, for every operator.)

    With the exact flow map of Gaussian images of variance .25, τ from 1 to .2, the samples come to be those of the
    posterior as k grows, from 1.8 times its variance at 8 sweeps to 1.1 at 64. There and with a model trained on brains
    "gaussian" is the nearer one at equal network calls; the default times are best for the latter, on its training
    slices. A lower τ_k gives images that are nearer to the mean, and less different.

    Parameters
    ----------
    sweeps
        k.
    renoise
        "amplify", two network calls a sweep, or "gaussian", one.
    highest, lowest
        τ_1 and τ_k, a geometric progression between.
    ratio
        r, in (0, 1).
    start
        ε_0.
    """

    sweeps: int = 32
    renoise: Renoise = "gaussian"
    highest: float = 0.5
    lowest: float = 0.02
    ratio: float = 0.5
    start: float = FIRST_NOISE

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.sweeps < 1:
            raise UsageError(f"BCM: sweeps starts at 1, got {self.sweeps}")
        if self.renoise not in get_args(Renoise):
            raise UsageError(f"BCM: renoise is {' or '.join(get_args(Renoise))}, got {self.renoise!r}")
        if not 0 < self.lowest <= self.highest:
            raise UsageError(f"BCM: expected 0 < lowest <= highest, got {self.lowest} and {self.highest}")
        if not 0 < self.ratio < 1 or self.start < 0:
            raise UsageError(f"BCM: expected 0 < ratio < 1 and start >= 0, got {self.ratio} and {self.start}")

    def times(self) -> list[tuple[float, float]]:
        """Return (ε_i, τ_i) of all sweeps.

        Examples
        --------
        >>> BCMSweeps(sweeps=3, highest=4.0, lowest=1.0, ratio=0.5).times()
        [(2.0, 4.0), (1.0, 2.0), (0.5, 1.0)]
        """
        fall = (self.lowest / self.highest) ** (1 / max(self.sweeps - 1, 1))
        taus = [self.highest * fall**i for i in range(self.sweeps)]
        return [(self.ratio * tau, tau) for tau in taus]

    def __call__(
        self,
        prior: FlowPrior,
        problem: InverseProblem,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return a sample that explains the data, (B', C, H, W)."""
        scheduler, pairs = prior.scheduler, self.times()
        if self.highest > scheduler.sigma_max or min(pairs[-1]) < scheduler.sigma_min:
            raise UsageError(
                f"BCM: times from ratio * lowest = {min(pairs[-1]):g} to highest = {self.highest:g} leave those of the "
                f"model, {scheduler.sigma_min:g} to {scheduler.sigma_max:g}"
            )
        x = problem.drawn(self.start * problem.draw_noise(generator))
        calls = 2 if self.renoise == "amplify" else 1
        for number, (small, large) in enumerate(pairs, start=1):
            path = [large, scheduler.sigma_min] if self.renoise == "gaussian" else [small, large, scheduler.sigma_min]
            clean = follow(prior.f, x + path[0] * problem.draw_noise(generator), path)
            x = problem.drawn(clean, large**2 / (large**2 + problem.noise**2))
            if progress is not None:
                progress(number * calls, self.sweeps * calls)
        return x


def inpaint(
    f: FlowMap,
    images: Tensor,
    known: Tensor,
    sweeps: Sequence[tuple[float, float]],
    sigma_min: float = 0.002,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images whose unknown pixels are filled in, by the sweeps of :class:`BCMSweeps`.

    Parameters
    ----------
    f
        The flow map, of anything: no operator, no units.
    images
        (B, ...), in [-1, 1].
    known
        Mask of the pixels that are kept, of the shape of the images or broadcast to it.
    sweeps
        (ε_i, τ_i), falling.
    sigma_min
        Of the flow map.
    generator
        Of the noise.
    """
    keep = known.bool()
    x = torch.where(keep, images, FIRST_NOISE * white_noise(images, generator))
    for small, large in sweeps:
        up_and_down = follow(f, x + small * white_noise(x, generator), (small, large, sigma_min))
        x = torch.where(keep, images, up_and_down)
    return x
