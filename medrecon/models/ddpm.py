"""The denoising diffusion probabilistic model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from medrecon.models.ddnm import DDNM
from medrecon.models.prior import ImagePrior, Sampler
from medrecon.models.prior_unet import UNET_PRESETS, PriorUNet
from medrecon.models.registry import register_model


@register_model("ddnm")
class DiffusionPrior(ImagePrior):
    r"""A diffusion model of images (Ho et al., DDPM, NeurIPS 2020), for zero-shot reconstruction by DDNM.

    A U-Net predicts the noise ε of :math:`x_t = \sqrt{\barα_t}\, x_0 + \sqrt{1 - \barα_t}\, ε`,
    ᾱ_t = Π (1 - β), trained by

    .. math:: E\, ‖ε - ε_θ(x_t, t)‖^2, \qquad t \sim U\{0 … T - 1\}, \quad ε \sim N(0, I).

    The score is :math:`-ε_θ / \sqrt{1 - \barα_t}`. Images, their units and any operator: see
    :class:`~medrecon.models.prior.ImagePrior`.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or 3.
    widths, layers, attention, groups, dropout
        Of the U-Net, see :class:`~medrecon.models.prior_unet.PriorUNet`.
    times
        T.
    betas
        The first and the last β, linear between.
    steps
        Network calls of :meth:`forward`.
    consistency_iterations
        Of the solver where the operator has no closed-form pseudo-inverse.
    peak
        The intensity that becomes 1 in the network, in units of the energy median of the image.
    intensity
        The energy median; None estimates it for each sample.

    Notes
    -----
    Presets: ``base`` (a GPU), ``small`` (a CPU, 64 pixels), ``tiny`` (tests).

    Examples
    --------
    >>> import torch
    >>> from medrecon.models.ddpm import DiffusionPrior
    >>> from medrecon.operators import Inpainting
    >>> model = DiffusionPrior.from_preset("tiny")
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "base": {**UNET_PRESETS["base"]},
        "small": {**UNET_PRESETS["small"]},
        "tiny": {**UNET_PRESETS["tiny"], "times": 20, "steps": 2},
    }

    @register_to_config  # writes every argument to config.json
    def __init__(
        self,
        image_channels: int = 1,
        widths: Sequence[int] = (32, 64, 96),
        layers: int = 1,
        attention: Sequence[int] = (),
        groups: int = 8,
        dropout: float = 0.0,
        times: int = 1000,
        betas: Sequence[float] = (1e-4, 0.02),
        steps: int = 50,  # noqa: ARG002 (this and what follows is read from the config)
        consistency_iterations: int = 10,  # noqa: ARG002
        peak: float = 2.0,  # noqa: ARG002
        intensity: float | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.unet = PriorUNet(
            image_channels,
            image_channels,
            widths,
            layers=layers,
            attention=attention,
            groups=groups,
            dropout=dropout,
        )
        first, last = betas
        schedule = DDPMScheduler(num_train_timesteps=times, beta_start=first, beta_end=last)
        self.register_buffer("alpha_bars", schedule.alphas_cumprod, persistent=False)
        self.alpha_bars: Tensor

    def predict_noise(self, x: Tensor, time: int) -> Tensor:
        """Return ε_θ(x_t, t), (B, C, H, W), for t from 0."""
        return self._noise(x, torch.full((len(x),), time, device=x.device))

    def image_loss(self, images: Tensor) -> Tensor:
        """Return ‖ε - ε_θ‖², averaged over pixels, channels and samples."""
        times = torch.randint(len(self.alpha_bars), (len(images),), device=images.device)
        bars, noise = self.alpha_bars[times, None, None, None], torch.randn_like(images)
        noisy = bars.sqrt() * images + (1 - bars).sqrt() * noise
        return (self._noise(noisy, times) - noise).square().mean()

    @property
    def network_calls(self) -> int:
        """The ``steps`` of the configuration."""
        steps: int = self.settings.steps
        return steps

    def default_sampler(self) -> Sampler:
        """Return DDNM with as many steps as the configuration says."""
        return DDNM(steps=self.settings.steps)

    def _noise(self, x: Tensor, times: Tensor) -> Tensor:
        noise: Tensor = self.unet(x, times)
        return noise
