"""The Directly Denoising Diffusion Model."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from medrecon.datasets.batch import TrainingBatch
from medrecon.datasets.source import Source
from medrecon.errors import UsageError
from medrecon.models.dddm_loss import Distance, dddm_loss, mean_square, relative_pseudo_huber
from medrecon.models.dddm_sampling import DDDMSteps, generate
from medrecon.models.dddm_scheduler import DDDMScheduler, Process
from medrecon.models.estimates import EstimatePolicy, Estimator, RecomputedEstimate
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.losses import Loss
from medrecon.models.prior import ImagePrior, Sampler
from medrecon.models.prior_unet import UNET_PRESETS, PriorUNet
from medrecon.models.registry import register_model
from medrecon.operators.base import LinearOperator
from medrecon.operators.solvers import per_sample

DirectLoss = Literal["pseudo-huber", "l2"]
"""See :class:`DirectlyDenoisingModel`."""
Policy = Literal["recompute", "none"]
"""See :class:`DirectlyDenoisingModel`."""


@register_model("dddm")
class DirectlyDenoisingModel(ImagePrior):
    r"""A model that improves its own estimate of the image in a few steps (Zhang et al., ICML 2024, arXiv:2405.13540).

    A U-Net F sees the noisy image, the estimate so far and what the measurements show,

    .. math:: f(e, x_t, t \mid A^+ y) = κ_t x_t + (1 - κ_t) F([x_t, e, A^+ y], t), \qquad
        \hat f = f - λ A^+ (A f - y),

    and is trained with the data consistency of its use, :math:`E\, d(\hat f(x_0^{est}, x_t, t \mid A^+ y), x_0)`,
    where x_0^est is A⁺y or an estimate of its own made from more noise. It reconstructs by
    :math:`e_n = \hat f(e_{n-1}, x_T, T \mid A^+ y)` from e_0 = A⁺y, see
    :class:`~medrecon.models.dddm_sampling.DDDMSteps`. A⁺y is the initial image of the operator, drawn to the data.
    So it is trained for the operators that it meets in training, unlike a prior of images alone. With
    ``conditional=False`` it is one: F does without A⁺y, e_0 is noise, and training sees no measurements.

    Images, their units and any operator: see :class:`~medrecon.models.prior.ImagePrior`.

    Parameters
    ----------
    image_channels
        1, 2 (a complex image, or two real ones) or 3.
    widths, layers, attention, groups, dropout
        Of the U-Net, see :class:`~medrecon.models.prior_unet.PriorUNet`.
    times
        T.
    process
        "ve" or "vp", see :class:`~medrecon.models.dddm_scheduler.DDDMScheduler`. The paper's is "vp", where F has to
        reproduce all of x_T before f is anything but noise: a U-Net learns that slowly. For "ve" f is F there.
    conditional
        Whether the network sees A⁺y.
    policy
        Where x_0^est is from in training: "recompute", see
        :class:`~medrecon.models.estimates.RecomputedEstimate`, or "none", where it is always x_0^(0).
    loss
        d: "pseudo-huber", with c = ``huber`` √d, or "l2", whose optimum is the mean of the posterior.
    huber
        c / √d.
    steps
        Network calls of :meth:`forward`.
    consistency_iterations
        Of the solver where the operator has no closed-form pseudo-inverse.
    noise
        Of the measurements it is for: standard deviation, for A / ‖A‖, as a share of the brightest pixels.
    error
        Standard deviation of what f is wrong by, in units of the network: λ = error² / (error² + σ_y²), the best
        compromise where both errors are white. Without noise λ is 1.
    peak
        The intensity that becomes 1 in the network, in units of the energy median of the image.
    intensity
        The energy median; None estimates it for each sample.

    Attributes
    ----------
    estimates
        The policy itself. To be replaced by a :class:`~medrecon.models.estimate_store.MemmapEstimateStore` where the
        published way is wanted; no part of a saved model.

    Raises
    ------
    UsageError
        For values that there are not.

    Notes
    -----
    Presets: ``base`` (a GPU), ``small`` (a CPU, 64 pixels), ``tiny`` (tests).

    Examples
    --------
    >>> import torch
    >>> from medrecon.models.dddm import DirectlyDenoisingModel
    >>> from medrecon.operators import Inpainting
    >>> model = DirectlyDenoisingModel.from_preset("tiny")
    >>> operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    >>> model(operator(torch.rand(3, 1, 9, 7)), operator).shape
    torch.Size([3, 1, 9, 7])
    """

    _PRESETS: ClassVar[Mapping[str, dict[str, Any]]] = {
        "base": {**UNET_PRESETS["base"]},
        "small": {**UNET_PRESETS["small"]},
        "tiny": {**UNET_PRESETS["tiny"], "times": 20},
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
        process: Process = "ve",
        conditional: bool = True,
        policy: Policy = "recompute",
        loss: DirectLoss = "pseudo-huber",
        huber: float = 0.00054,
        steps: int = 2,
        consistency_iterations: int = 10,  # noqa: ARG002 (this and what follows is read from the config)
        noise: float = 0.0,
        error: float = 0.1,
        peak: float = 2.0,  # noqa: ARG002
        intensity: float | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        if policy not in get_args(Policy):
            raise UsageError(
                f"policy must be one of {', '.join(get_args(Policy))}, got {policy!r}; a store is given from Python: "
                "model.estimates = MemmapEstimateStore(...)"
            )
        if loss not in get_args(DirectLoss) or not huber > 0:
            raise UsageError(
                f"loss must be one of {', '.join(get_args(DirectLoss))} with huber > 0, got {loss!r} and {huber}"
            )
        if not (0 <= noise < 1 and error > 0):
            raise UsageError(f"noise lies between 0 and 1 and error is above 0, got {noise} and {error}")
        DDDMSteps(steps)
        self.unet = PriorUNet(
            image_channels * (3 if conditional else 2),
            image_channels,
            widths,
            layers=layers,
            attention=attention,
            groups=groups,
            dropout=dropout,
        )
        self.scheduler = DDDMScheduler(times, process)
        self.estimates: EstimatePolicy = RecomputedEstimate(0.5 if policy == "recompute" else 1.0)

    def estimate(self, estimate: Tensor, x: Tensor, times: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return f(e, x_t, t | A⁺y) without data consistency, (B', C, H, W).

        Parameters
        ----------
        estimate, x
            e and x_t, (B', C, H, W).
        times
            t from 0, (B',).
        condition
            A⁺y like them; None where the model is not conditional.
        """
        seen = [self.scheduler.scale_model_input(x, times), estimate, *([] if condition is None else [condition])]
        return self.scheduler.clean(self.unet(torch.cat(seen, 1), times), x, times)

    def start(self, problem: InverseProblem, generator: torch.Generator | None) -> Tensor:
        """Return x_0^(0), (B', C, H, W): A⁺y, or noise where the model is not conditional."""
        if not self.settings.conditional:
            return problem.draw_noise(generator)
        return problem.drawn(problem.initial, self._share(problem))

    def estimator(self, problem: InverseProblem, start: Tensor) -> Estimator:
        """Return f with data consistency, which sees ``start`` as A⁺y where the model is conditional."""
        condition, share = start if self.settings.conditional else None, self._share(problem)

        def f(estimate: Tensor, x: Tensor, times: Tensor) -> Tensor:
            return problem.drawn(self.estimate(estimate, x, times, condition), share)

        return f

    def training_loss(self, batch: TrainingBatch, loss: Loss = "l1") -> Tensor:
        """Return E d(f, x_0), a scalar; conditional f sees the measurements and is drawn to them.

        Parameters
        ----------
        batch
            Measurements, operator, truth and, for stores, sources.
        loss
            Must be the default: which d it is, the configuration says.
        """
        self._check_loss(loss)
        self._check(batch.operator)
        with torch.no_grad():
            unit = self.unit_of(batch.target)
            problem = self._problem(batch.measurements, batch.operator, self.settings.noise, unit)
            images = self._to_network(batch.target / per_sample(unit, batch.target), batch.operator)
            start = self.start(problem, None) if self.settings.conditional else torch.randn_like(images)
        f = self.estimator(problem, start) if self.settings.conditional else self.estimate
        return self._loss(f, images, start, batch.sources)

    def image_loss(self, images: Tensor) -> Tensor:
        """Return E d(f, x_0) of clean images (B', C, H, W) in [-1, 1], for a model that is not conditional."""
        if self.settings.conditional:
            raise UsageError(
                f"{type(self).__name__}: a conditional model is trained with measurements: use training_loss(batch), "
                "or build it with conditional=False"
            )
        return self._loss(self.estimate, images, torch.randn_like(images), ())

    def forward(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return the reconstruction by :meth:`default_sampler`, for the noise configured, with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        return self.reconstruct(
            measurements, operator, self.default_sampler(), noise=self.settings.noise, generator=generator
        )

    def generate(
        self, count: int, size: tuple[int, int], *, steps: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images of noise alone, (count, C, *size) in [-1, 1].

        See :func:`~medrecon.models.dddm_sampling.generate`, also for how good they may be expected to be.

        Raises
        ------
        UsageError
            For a conditional model.
        """
        if self.settings.conditional:
            raise UsageError(
                f"{type(self).__name__}: a conditional model makes images of measurements only; train one with "
                "conditional=False to generate"
            )
        shape = (count, self.settings.image_channels, *size)
        return generate(self.estimate, shape, self.scheduler, steps=steps, generator=generator, device=self.device)

    @property
    def network_calls(self) -> int:
        """The ``steps`` of the configuration."""
        steps: int = self.settings.steps
        return steps

    def default_sampler(self) -> Sampler:
        """Return as many improvements as the configuration says."""
        return DDDMSteps(self.settings.steps)

    def _loss(self, f: Estimator, images: Tensor, start: Tensor, sources: Sequence[Source]) -> Tensor:
        settings = self.settings
        distance: Distance = mean_square if settings.loss == "l2" else relative_pseudo_huber(settings.huber)
        return dddm_loss(f, images, start, self.scheduler, distance=distance, estimates=self.estimates, sources=sources)

    def _share(self, problem: InverseProblem) -> float:
        """Return λ."""
        error: float = self.settings.error
        return error**2 / (error**2 + problem.noise**2)
