"""DDNM with a trained diffusion model as a method of reconstruction."""

from typing import TYPE_CHECKING

from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.sampling import PriorReconstructor

if TYPE_CHECKING:
    from medrecon.models.prior import Sampler


@register_method("ddnm")
class NullSpaceDiffusion(PriorReconstructor):
    """DDNM: a diffusion model fills in what the measurements do not say.

    See :class:`medrecon.models.ddnm.DDNM` for the steps and
    :class:`~medrecon.reconstructors.sampling.PriorReconstructor` for the rest.

    Parameters
    ----------
    checkpoint, samples, noise
        See there.
    steps
        Network calls without time travel.
    eta
        Share of fresh noise in every step.
    travel, repeats
        Time travel, for hard tasks 10 and 3.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        samples: int = 1,
        noise: float = 0.0,
        steps: int = 100,
        eta: float = 0.85,
        travel: int = 1,
        repeats: int = 1,
    ) -> None:
        super().__init__(checkpoint, samples, noise)
        self.steps = steps
        self.eta = eta
        self.travel = travel
        self.repeats = repeats
        self._sampler()

    def _sampler(self) -> "Sampler":
        from medrecon.models.ddnm import DDNM

        return DDNM(self.steps, self.eta, self.travel, self.repeats)
