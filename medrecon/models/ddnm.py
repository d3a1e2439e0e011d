r"""DDNM and DDNM+: zero-shot reconstruction with a diffusion prior (Wang, Yu and Zhang, ICLR 2023, arXiv:2212.00490).

Every predicted clean image is replaced by its nearest neighbour that explains the data (equation 13 there), then
noise is added for the next, lower level by a DDIM step. The published "simplified" code takes ᾱ for its root and
shrinks all noise even for exact data; its samples then collapse towards the mean. Here are the formulas of the paper.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.sampling import denoise, renoise
from medrecon.optimization.convergence import Progress


class NoisePredictor(Protocol):
    """A diffusion prior: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε."""

    @property
    def alpha_bars(self) -> Tensor:
        """ᾱ_0 … ᾱ_{T-1}, falling."""

    def predict_noise(self, x: Tensor, time: int) -> Tensor:
        """Return ε_θ(x_t, t), like x."""


@dataclass(frozen=True)
class DDNM:
    r"""Range-null-space sampling, noise-aware where the data are noisy.

    With :math:`\hat x_0 = (x_t - \sqrt{1 - \barα_t}\, ε) / \sqrt{\barα_t}`, from t to the next s,

    .. math::
        \hat x = \hat x_0 - λ A^+ (A \hat x_0 - y), \qquad
        x_s = \sqrt{\barα_s}\, \hat x + g \sqrt{1 - \barα_s} (\sqrt{1 - η^2}\, ε + η z),

    with λ = g = 1 for exact data, and :func:`noise_weights` for noisy ones.

    Parameters
    ----------
    steps
        S, of which each takes one call of the network; T must be at least that.
    eta
        η, the share of fresh noise: 0 is deterministic but for the start.
    travel, repeats
        Time travel (RePaint): every ``travel`` steps go back as many, until each stretch has been walked
        ``repeats`` times; 1 and 1 do without.
    """

    steps: int = 100
    eta: float = 0.85
    travel: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1 or self.travel < 1 or self.repeats < 1:
            raise UsageError(
                f"DDNM: steps, travel and repeats start at 1, got {self.steps}, {self.travel} and {self.repeats}"
            )
        if not 0 <= self.eta <= 1:
            raise UsageError(f"DDNM: eta lies between 0 and 1, got {self.eta}")

    def __call__(
        self,
        prior: NoisePredictor,
        problem: InverseProblem,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return a sample that explains the data, (B', C, H, W)."""
        bars = prior.alpha_bars.to(problem.initial)
        if self.steps > len(bars):
            raise UsageError(f"DDNM: {self.steps} steps are more than the {len(bars)} that the prior knows")
        stride = len(bars) // self.steps
        pairs = list(time_travel(self.steps, self.travel, self.repeats))
        calls, done = sum(after < before for before, after in pairs), 0
        x = clean = problem.draw_noise(generator)
        for before, after in pairs:
            bar = bars[after * stride] if after >= 0 else bars.new_ones(())
            if after > before:
                x = renoise(clean, problem.draw_noise(generator), bar)
                continue
            noise = prior.predict_noise(x, before * stride)
            clean = denoise(x, noise, bars[before * stride])
            share, gain = noise_weights(float(bar), problem.noise)
            fresh = (1 - self.eta**2) ** 0.5 * noise + self.eta * problem.draw_noise(generator)
            x = renoise(problem.drawn(clean, share), gain * fresh, bar)
            done += 1
            if progress is not None:
                progress(done, calls)
        return x


def noise_weights(alpha_bar: float, noise: float) -> tuple[float, float]:
    r"""Return λ and g of a step to ᾱ for data with noise σ_y, where A⁺ passes it on unchanged (DDNM+, section 3.3).

    With :math:`a = \sqrt{\barα}` and :math:`σ = \sqrt{1 - \barα}`: what the data bring is a σ_y, and where that is
    less than σ the rest is filled up, :math:`λ = 1, g = \sqrt{σ^2 - a^2 σ_y^2} / σ`; else
    :math:`λ = σ / (a σ_y), g = 0`.
    """
    brought, wanted = alpha_bar**0.5 * noise, (1 - alpha_bar) ** 0.5
    if wanted >= brought:
        return 1.0, (wanted**2 - brought**2) ** 0.5 / wanted if wanted > 0 else 1.0
    return wanted / brought, 0.0


def time_travel(steps: int, length: int = 1, repeats: int = 1) -> Iterator[tuple[int, int]]:
    """Yield pairs (from, to) of step numbers, S - 1 down to -1, the end; upwards by ``length`` where it goes back.

    The network is called (S / l - 1)(r - 1) l times more than S (Lugmayr et al., RePaint, CVPR 2022).

    Examples
    --------
    >>> list(time_travel(4, 2, 2))
    [(3, 2), (2, 1), (1, 0), (0, 2), (2, 1), (1, 0), (0, -1)]
    """
    left = dict.fromkeys(range(0, steps - length, length), repeats - 1)
    place = steps - 1
    while place >= 0:
        after = place - 1
        yield place, after
        place = after
        if left.get(place, 0) > 0:
            left[place] -= 1
            yield place, place + length
            place += length
