"""The Directly Denoising Diffusion Model as a method of reconstruction."""

from typing import TYPE_CHECKING

from medrecon.errors import UsageError
from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.sampling import PriorReconstructor

if TYPE_CHECKING:  # diffusers takes its time to import
    from medrecon.models.prior import Sampler


@register_method("dddm")
class DirectDenoising(PriorReconstructor):
    """DDDM: a network improves its estimate of the image a few times, each drawn to the data.

    See :class:`medrecon.models.dddm.DirectlyDenoisingModel` and :class:`medrecon.models.dddm_sampling.DDDMSteps`, and
    :class:`~medrecon.reconstructors.sampling.PriorReconstructor` for the rest. Draws differ by the noise that the
    network starts from only; a well trained conditional one hardly heeds it, so they are no picture of uncertainty.

    Parameters
    ----------
    checkpoint, samples
        See there.
    noise
        As there; what the model was trained for by default.
    steps
        Network calls of a draw; as many as the model was trained to be judged with by default.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        samples: int = 1,
        noise: float | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__(checkpoint, samples, 0.0 if noise is None else noise)
        trained = self.model.settings
        self.noise = trained.noise if noise is None else noise
        self.steps = trained.steps if steps is None else steps
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise UsageError(f"dddm: steps is a number of network calls, got {steps!r}")
        self._sampler()

    def _sampler(self) -> "Sampler":
        from medrecon.models.dddm_sampling import DDDMSteps

        return DDDMSteps(self.steps)
