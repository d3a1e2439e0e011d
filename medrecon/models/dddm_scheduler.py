"""The noise processes of the Directly Denoising Diffusion Model, and its estimate of the clean image."""

from typing import Literal, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.solvers import per_sample

Process = Literal["vp", "ve"]
"""Variance preserving or variance exploding."""


class DDDMScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own way
    r"""Noise of T levels t = 0 … T - 1, the strongest last, and f from what the network F gives.

    ========  ====================================================  ================================  ===============
    process   :math:`x_t`                                           :math:`f(x_0^{est}, x_t, t)`      levels
    ========  ====================================================  ================================  ===============
    ``vp``    :math:`\sqrt{\barα_t}\, x_0 + \sqrt{1 - \barα_t}\, z`  :math:`x_t - F`                   β linear
    ``ve``    :math:`x_0 + σ_t z`                                   :math:`κ_t x_t + (1 - κ_t) F`     σ geometric
    ========  ====================================================  ================================  ===============

    with ᾱ_t = Π (1 - β), β from ``beta_min`` / T to ``beta_max`` / T, κ_t = σ_min / σ_t (Zhang et al., Directly
    Denoising Diffusion Models, ICML 2024, arXiv:2405.13540, equation 3, and the follow-up arXiv:2405.21059).
    Without noise f is x_t. The published code takes the limits of σ for those of β; these are the usual ones.

    Parameters
    ----------
    num_train_timesteps
        T.
    process
        See the table.
    beta_min, beta_max
        T β_0 and T β_{T-1}.
    sigma_min, sigma_max
        σ_0 and σ_{T-1}, in units of the images.

    Raises
    ------
    UsageError
        For another process, or limits that are not positive and rising.

    Examples
    --------
    >>> import torch
    >>> scheduler = DDDMScheduler(100)
    >>> scheduler.add_noise(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.tensor([99])).mean() > 0.99
    tensor(True)
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        process: Process = "vp",
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
    ) -> None:
        if process not in get_args(Process):
            raise UsageError(f"DDDMScheduler: process must be one of {', '.join(get_args(Process))}, got {process!r}")
        if num_train_timesteps < 2:
            raise UsageError(f"DDDMScheduler: expected at least 2 noise levels, got {num_train_timesteps}")
        if process == "vp" and not 0 < beta_min < beta_max <= num_train_timesteps:
            raise UsageError(
                f"DDDMScheduler: expected 0 < beta_min < beta_max <= {num_train_timesteps}, the number of noise "
                f"levels, got {beta_min} and {beta_max}"
            )
        if process == "ve" and not 0 < sigma_min < sigma_max:
            raise UsageError(f"DDDMScheduler: expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.process: Process = process
        count = num_train_timesteps
        betas = torch.linspace(beta_min / count, beta_max / count, count, dtype=torch.float64)
        share = torch.linspace(0, 1, count, dtype=torch.float64)
        bars = (1 - betas).cumprod(0)
        exploding = process == "ve"
        self.signals = torch.ones_like(bars) if exploding else bars.sqrt()
        """√ᾱ_t, or 1: how much of x_0 is in x_t, (T,)."""
        self.sigmas = sigma_min * (sigma_max / sigma_min) ** share if exploding else (1 - bars).sqrt()
        """√(1 - ᾱ_t), or σ_t: the standard deviation of the noise, (T,)."""
        self.init_noise_sigma = sigma_max if exploding else 1.0
        """Standard deviation of x_T where nothing but noise is known."""

    def __len__(self) -> int:
        """Return T."""
        return len(self.sigmas)

    def draw_times(self, count: int, device: torch.device | None = None) -> Tensor:
        """Return times t ~ U{0 … T - 1}, (count,), of torch's default generator."""
        return torch.randint(len(self), (count,), device=device)

    def last_times(self, count: int, device: torch.device | None = None) -> Tensor:
        """Return the time of the strongest noise, (count,): the only one at which images are made."""
        return torch.full((count,), len(self) - 1, device=device)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t of clean images x_0 and white noise z, (B, ...), at times (B,)."""
        signal, sigma = (_at(table, timesteps, original_samples) for table in (self.signals, self.sigmas))
        return signal * original_samples + sigma * noise

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Return x_t with a standard deviation near 1, as the network takes it: x_t / √(ᾱ_t + σ_t²)."""
        signal, sigma = (_at(table, timestep, sample) for table in (self.signals, self.sigmas))
        return sample / (signal.square() + sigma.square()).sqrt()

    def clean(self, model_output: Tensor, sample: Tensor, timesteps: Tensor) -> Tensor:
        """Return f, the estimate of x_0.

        Parameters
        ----------
        model_output
            F, (B, ...).
        sample
            x_t, like F.
        timesteps
            t, (B,).
        """
        if self.process == "vp":
            return sample - model_output
        kappa = self.sigmas[0].item() / _at(self.sigmas, timesteps, sample)
        return kappa * sample + (1 - kappa) * model_output


def _at(table: Tensor, times: Tensor, like: Tensor) -> Tensor:
    """Return entries of a table, to be broadcast over images."""
    return per_sample(table.to(like.dtype).to(like.device)[times], like)
