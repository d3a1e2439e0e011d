"""The bidirectional consistency model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from medrecon.errors import InputError, UsageError
from medrecon.models.bcm_loss import bidirectional_consistency_loss, frozen
from medrecon.models.bcm_restoration import BCMSweeps, Renoise
from medrecon.models.bcm_scheduler import BCMScheduler, times_of
from medrecon.models.karras import EndTimes, checked_end_times, discretization_steps, draw_times
from medrecon.models.prior import ImagePrior, Sampler
from medrecon.models.prior_unet import UNET_PRESETS, PriorUNet
from medrecon.models.qkv_attention import normalize_attention
from medrecon.models.registry import register_model


@register_model("bcm")
class BidirectionalConsistencyModel(ImagePrior):
    r"""A flow map between images and noise, both ways, for zero-shot reconstruction in a few network calls.

    One U-Net F with two times makes

    .. math:: f_θ(x_t, t, u) = c_{skip}(t, u)\, x_t + c_{out}(t, u)\, F_θ(c_{in}(t)\, x_t, t, u) ≈ x_u

    (Li and He, "Bidirectional consistency models", arXiv:2403.18035): u < t takes noise away, u > t amplifies it.
    See :class:`~medrecon.models.bcm_scheduler.BCMScheduler` for the factors,
    :func:`~medrecon.models.bcm_loss.consistency_terms` for the loss, :mod:`medrecon.models.bcm_sampling` for generation
    and inversion, :class:`~medrecon.models.bcm_restoration.BCMSweeps` for reconstruction, and
    :class:`~medrecon.models.prior.ImagePrior` for the units.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or 3.
    widths, layers, attention, groups, dropout
        Of the U-Net, see :class:`~medrecon.models.prior_unet.PriorUNet`; its attention normalises q, k and v.
    sigma_min, sigma_max, sigma_data, rho
        Of the scheduler. σ_max is some ten times the range of the images at least; 20 is learned sooner than 80.
    n_start, n_end, total_batches
        Of :func:`~medrecon.models.karras.discretization_steps`: s_0, s_1 and K, in calls of the training loss.
    end_times
        Law of t', see :func:`~medrecon.models.karras.draw_times`.
    huber
        c / √d of the distance.
    sweeps, renoise
        Of :meth:`forward`, see :class:`~medrecon.models.bcm_restoration.BCMSweeps`.
    consistency_iterations
        Of the solver where the operator has no closed-form pseudo-inverse.
    peak
        The intensity that becomes 1 in the network, in units of the energy median of the image.
    intensity
        The energy median; None estimates it for each sample.

    Attributes
    ----------
    scheduler
        Times and factors.
    batches
        k, the calls of the training loss so far; saved with the weights, so that a run goes on where it stopped.

    Notes
    -----
    Presets: ``base`` (a GPU), ``small`` (a CPU, 64 pixels), ``tiny`` (tests).

    Examples
    --------
    >>> import torch
    >>> from medrecon.models.bcm import BidirectionalConsistencyModel
    >>> from medrecon.operators import Inpainting
    >>> model = BidirectionalConsistencyModel.from_preset("tiny")
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "base": {**UNET_PRESETS["base"], "end_times": "uniform", "total_batches": 200_000},
        "small": {
            **UNET_PRESETS["small"],
            "sigma_max": 20.0,
            "n_end": 160,
            "total_batches": 10_000,
            "end_times": "uniform",
        },
        "tiny": {
            **UNET_PRESETS["tiny"],
            "sigma_max": 20.0,
            "n_end": 20,
            "total_batches": 20,
            "end_times": "uniform",
            "sweeps": 2,
        },
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
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        rho: float = 7.0,
        n_start: int = 10,
        n_end: int = 1280,
        total_batches: int = 400_000,
        end_times: EndTimes = "lognormal",
        huber: float = 0.00054,
        sweeps: int = 32,
        renoise: Renoise = "gaussian",
        consistency_iterations: int = 10,  # noqa: ARG002 (this and what follows is read from the config)
        peak: float = 2.0,  # noqa: ARG002
        intensity: float | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        checked_end_times(end_times)
        discretization_steps(0, total_batches, n_start, n_end)
        BCMSweeps(sweeps=sweeps, renoise=renoise)
        if not huber > 0:
            raise UsageError(f"huber: expected a number > 0, got {huber}")
        self.scheduler = BCMScheduler(sigma_min, sigma_max, sigma_data, rho)
        self.unet = PriorUNet(
            image_channels,
            image_channels,
            widths,
            layers=layers,
            attention=attention,
            groups=groups,
            second_time=True,
            dropout=dropout,
        )
        normalize_attention(self.unet)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.batches: Tensor

    def f(self, x: Tensor, t: Tensor | float, u: Tensor | float) -> Tensor:
        """Return images x (B, C, H, W) at the time t as they are at the time u.

        Parameters
        ----------
        x
            Clean images in [-1, 1] plus t z.
        t, u
            From σ_min, which is where the data are, to σ_max; for all images or (B,).
        """
        return self.scheduler.flow(self.unet, x, times_of(x, t), times_of(x, u))

    def image_loss(self, images: Tensor) -> Tensor:
        """Return the mean of :func:`~medrecon.models.bcm_loss.consistency_terms`; in training, k goes up by one."""
        s = self.settings
        intervals = discretization_steps(int(self.batches), s.total_batches, s.n_start, s.n_end)
        if self.training:
            self.batches.add_(1)
        grid = self.scheduler.grid(intervals).to(images)
        times = draw_times(grid, len(images), s.end_times)
        still = frozen(self.unet)
        return bidirectional_consistency_loss(
            (self.f, lambda x, t, u: self.scheduler.flow(still, x, t, u)),
            images,
            times.lower,
            times.upper,
            times.end,
            torch.randn_like(images),
            s.huber * images[0].numel() ** 0.5,
            s.sigma_min,
        )

    @property
    def network_calls(self) -> int:
        """One a sweep, or two where noise is amplified."""
        sweeps: int = self.settings.sweeps
        return 2 * sweeps if self.settings.renoise == "amplify" else sweeps

    def default_sampler(self) -> Sampler:
        """Return the sweeps of the configuration."""
        return BCMSweeps(sweeps=self.settings.sweeps, renoise=self.settings.renoise)

    def start_from_consistency(self, weights: Mapping[str, Tensor]) -> None:
        """Take over a consistency model's network F(x, t), before training: F(x, t, u) is the same for every u.

        The first layer of the second time becomes that of the first, its last layer 0 (arXiv:2403.18035, section 3.4:
        fine-tuning, "BCF", which takes ``n_start`` = ``n_end`` = 320).

        Parameters
        ----------
        weights
            The state dict of a :class:`~medrecon.models.prior_unet.PriorUNet` without a second time, else like this.

        Raises
        ------
        InputError
            For weights that do not fit.
        """
        given = dict(weights)
        for kind in ("weight", "bias"):
            first, last = f"net.time_embedding.linear_1.{kind}", f"net.class_embedding.linear_2.{kind}"
            given[last] = torch.zeros_like(self.unet.state_dict()[last])
            if first in given:
                given[f"net.class_embedding.linear_1.{kind}"] = given[first].clone()
        try:
            self.unet.load_state_dict(given)
        except RuntimeError as error:
            raise InputError(
                f"weights of a consistency model: {str(error).splitlines()[1].strip()} expected those of a PriorUNet "
                "with the same configuration and one time"
            ) from error
