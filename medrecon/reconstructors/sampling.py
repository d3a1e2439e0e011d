"""Methods that draw images from a posterior: their mean, and how far they differ."""

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors.base import Setting
from medrecon.reconstructors.learned import LearnedReconstructor

if TYPE_CHECKING:  # diffusers takes its time to import
    from medrecon.models.prior import ImagePrior, Sampler


class PriorReconstructor(LearnedReconstructor):
    r"""A trained :class:`~medrecon.models.prior.ImagePrior` with a sampler, zero-shot for any operator.

    The result is the mean :math:`\frac1N \sum_n x^{(n)}` of N draws, whose squared error is smaller than that of
    a single one; :meth:`draws` returns all, for a map of their standard deviation.

    Parameters
    ----------
    checkpoint
        As for :class:`~medrecon.reconstructors.learned.LearnedReconstructor`.
    samples
        N.
    noise
        Standard deviation of the noise as a share of the brightest pixels, for A / ‖A‖; 0 takes the data as exact.
    """

    def __init__(self, checkpoint: str | None = None, samples: int = 1, noise: float = 0.0) -> None:
        super().__init__(checkpoint)
        if samples < 1:
            raise UsageError(f"{self.registered_name}: samples starts at 1, got {samples}")
        if not 0 <= noise < 1:
            raise UsageError(f"{self.registered_name}: noise is a share of the brightest pixels, 0 to 1, got {noise}")
        self.samples = samples
        self.noise = noise

    @abstractmethod
    def _sampler(self) -> "Sampler":
        """Return what reconstructs."""

    def settings(self, operator: LinearOperator) -> dict[str, Setting]:
        """Return the parameters, the checkpoint by its name and the hash of its weights."""
        return {**self.config(), **super().settings(operator)}

    @torch.no_grad()
    def draws(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return N images of each sample, (N, B, *operator.image_shape), in the units of the data.

        For noisy data they differ less than the posterior does: this is no calibrated uncertainty.
        """
        generator = generator or torch.Generator().manual_seed(0)
        prior = cast("ImagePrior", self.model)
        y, unit = self._normalised(measurements, operator)
        known = prior.unit(y, operator)
        drawn = []
        for number in range(self.samples):

            def report(done: int, steps: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * steps + done, self.samples * steps)

            x = prior.reconstruct(
                y, operator, self._sampler(), noise=self.noise, unit=known, generator=generator, progress=report
            )
            drawn.append(self._in_units(x, unit))
        return torch.stack(drawn)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        return self.draws(measurements, operator, generator=generator, progress=progress).mean(0)
