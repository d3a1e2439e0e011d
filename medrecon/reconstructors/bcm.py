"""A trained bidirectional consistency model as a method of reconstruction."""

from typing import TYPE_CHECKING

from medrecon.reconstructors.registry import register_method
from medrecon.reconstructors.sampling import PriorReconstructor

if TYPE_CHECKING:  # diffusers takes its time to import
    from medrecon.models.bcm_restoration import Renoise
    from medrecon.models.prior import Sampler


@register_method("bcm")
class BidirectionalConsistency(PriorReconstructor):
    """BCM: a flow map between images and noise fills in what the measurements do not say, in a few network calls.

    See :class:`medrecon.models.bcm_restoration.BCMSweeps` for the sweeps and
    :class:`~medrecon.reconstructors.sampling.PriorReconstructor` for the rest.

    Parameters
    ----------
    checkpoint, samples, noise
        See there.
    sweeps
        Each takes two network calls, or one with "gaussian".
    renoise
        How an image goes up again: "amplify" or "gaussian".
    highest, lowest
        Times of the first and of the last sweep, as standard deviations of noise on images in [-1, 1].
    ratio
        Noise that is amplified, as a share of the time it is amplified to.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        samples: int = 1,
        noise: float = 0.0,
        sweeps: int = 32,
        renoise: "Renoise" = "gaussian",
        highest: float = 0.5,
        lowest: float = 0.02,
        ratio: float = 0.5,
    ) -> None:
        super().__init__(checkpoint, samples, noise)
        self.sweeps = sweeps
        self.renoise = renoise
        self.highest = highest
        self.lowest = lowest
        self.ratio = ratio
        self._sampler()

    def _sampler(self) -> "Sampler":
        from medrecon.models.bcm_restoration import BCMSweeps

        return BCMSweeps(self.sweeps, self.renoise, self.highest, self.lowest, self.ratio)
