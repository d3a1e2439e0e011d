"""Noise levels of the bidirectional consistency model, and how its network becomes a flow map."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.models.karras import karras_grid
from medrecon.operators.solvers import per_sample

FlowMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""f(x, t, u): images (B, ...) at times t (B,), as they are at times u (B,)."""


class Scalings(NamedTuple):
    """Factors of :meth:`BCMScheduler.scalings`, shaped like the times.

    Attributes
    ----------
    skip, out, into
        c_skip, c_out and c_in.
    """

    skip: Tensor
    out: Tensor
    into: Tensor


class BCMScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own way
    r"""The process :math:`x_t = x_0 + t z`, t from σ_min to σ_max, and its flow map in both directions.

    .. math:: f(x, t, u) = c_{skip}(t, u)\, x + c_{out}(t, u)\, F(c_{in}(t)\, x, c_{noise}(t), c_{noise}(u))

    carries an image along the probability-flow ODE :math:`dx/dt = -t ∇\log p_t(x)` from time t to time u: towards the
    data for u < t, towards noise for u > t. "To the data" means u = σ_min, never 0 (Li and He, "Bidirectional
    consistency models", arXiv:2403.18035).

    Parameters
    ----------
    sigma_min, sigma_max
        Limits of the times; images are in [-1, 1].
    sigma_data
        Standard deviation of the data.
    rho
        Of the grid, see :func:`~medrecon.models.karras.karras_grid`.

    Examples
    --------
    >>> import torch
    >>> from medrecon.models.bcm_scheduler import BCMScheduler
    >>> scalings = BCMScheduler().scalings(torch.tensor([3.0]), torch.tensor([3.0]))
    >>> float(scalings.skip), float(scalings.out)
    (1.0, 0.0)
    """

    order = 1

    @register_to_config  # writes every argument to scheduler_config.json
    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5, rho: float = 7.0
    ) -> None:
        if not (0 < sigma_min < sigma_max and sigma_data > 0 and rho > 0):
            raise UsageError(
                "BCMScheduler: expected 0 < sigma_min < sigma_max, sigma_data > 0 and rho > 0, got "
                f"{sigma_min}, {sigma_max}, {sigma_data} and {rho}"
            )
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data
        self.rho = rho

    def scalings(self, t: Tensor, u: Tensor) -> Scalings:
        r"""Return c_skip, c_out and c_in, with which f(x, t, t) = x exactly.

        With σ = ``sigma_data``,

        .. math:: c_{skip} = \frac{t u + σ^2}{t^2 + σ^2}, \quad c_{out} = \frac{σ (t - u)}{\sqrt{t^2 + σ^2}}, \quad
            c_{in} = \frac{1}{\sqrt{t^2 + σ^2}}.
        """
        total = t.square() + self.sigma_data**2
        root = total.sqrt()
        return Scalings((t * u + self.sigma_data**2) / total, self.sigma_data * (t - u) / root, 1 / root)

    def c_noise(self, t: Tensor) -> Tensor:
        """Return 250 ln t, what the network's sinusoidal embedding takes for a time t > 0."""
        return 250 * t.log()

    def flow(self, network: FlowMap, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """Return f(x, t, u) of a network F(c_in x, c_noise(t), c_noise(u)).

        Parameters
        ----------
        network
            F.
        x
            Images (B, ...).
        t, u
            (B,).
        """
        skip, out, into = (per_sample(factor, x) for factor in self.scalings(t, u))
        return skip * x + out * network(into * x, self.c_noise(t), self.c_noise(u))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_0 + t z; the arguments bear the names that all of diffusers' schedulers give them."""
        return original_samples + per_sample(timesteps, original_samples) * noise

    def grid(self, intervals: int) -> Tensor:
        """Return σ_min … σ_max, (N + 1,), rising; see :func:`~medrecon.models.karras.karras_grid`."""
        return karras_grid(self.sigma_min, self.sigma_max, intervals, self.rho)


def times_of(x: Tensor, t: Tensor | float) -> Tensor:
    """Return a time for every image (B,)."""
    if isinstance(t, Tensor):
        return t.to(device=x.device, dtype=x.dtype).expand(len(x))
    return torch.full((len(x),), float(t), device=x.device, dtype=x.dtype)
