"""deepinv's DPS and DiffPIR with a diffusion model trained here, as methods to compare with."""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from medrecon.errors import UsageError
from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.sampling import PriorReconstructor

if TYPE_CHECKING:
    from medrecon.models.prior import Sampler


class DeepinvReconstructor(PriorReconstructor):
    """A sampler of the package deepinv, which must be installed; see :mod:`medrecon.models.deepinv_samplers`.

    Parameters
    ----------
    checkpoint
        Of a model "ddnm".
    samples, noise
        As for :class:`~medrecon.reconstructors.sampling.PriorReconstructor`.
    steps
        Network calls.
    """

    model_name: ClassVar[str | None] = "ddnm"

    def __init__(self, checkpoint: str | None = None, samples: int = 1, noise: float = 0.0, steps: int = 100) -> None:
        super().__init__(checkpoint, samples, noise)
        from medrecon.models.deepinv_samplers import import_deepinv

        if steps < 2:
            raise UsageError(f"{self.registered_name}: steps starts at 2, got {steps}")
        import_deepinv(str(self.registered_name))
        self.steps = steps

    def _sampler(self) -> "Sampler":
        from medrecon.models.deepinv_samplers import DeepinvSampler

        kind = cast(Literal["dps", "diffpir"], self.registered_name)
        return DeepinvSampler(kind, self.steps)


@register_method("dps")
class DiffusionPosteriorSampling(DeepinvReconstructor):
    """DPS of the package deepinv with a diffusion model trained here, to compare with ddnm."""


@register_method("diffpir")
class DiffPIR(DeepinvReconstructor):
    """DiffPIR of the package deepinv with a diffusion model trained here, to compare with ddnm."""
