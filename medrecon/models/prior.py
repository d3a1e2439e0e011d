"""Priors: models that know images, not measurements, and reconstruct with whatever operator comes."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medrecon.datasets.batch import TrainingBatch
from medrecon.errors import UsageError
from medrecon.models.base import ReconstructionModel, images_of
from medrecon.models.injector import network_images
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.losses import Loss
from medrecon.operators.base import LinearOperator
from medrecon.operators.scaling import energy_median
from medrecon.operators.solvers import per_sample
from medrecon.optimization.convergence import Progress
from medrecon.optimization.total_variation import total_variation

Sampler = Callable[[Any, InverseProblem, torch.Generator | None, Progress | None], Tensor]
"""What reconstructs by a prior: called with prior, problem, generator and progress, it returns images (B', C, H, W) of
the network that explain the measurements."""


class ImagePrior(ReconstructionModel):
    r"""A model of images in [-1, 1], trained on images alone.

    With s the energy median of the image (of the true one in training, in use of the one of least total variation:
    x_init may be dimmer by any factor) and k = ``peak``, an image x of the operator is, in the network,

    .. math:: u = x / (s k) \text{ (complex)}, \qquad u = 2 x / (s k) - 1 \text{ (real)},

    and measurements become :math:`y / (s k ‖A‖)`, for real images :math:`2 y / (s k ‖A‖) - A(1) / ‖A‖`.
    Intensities beyond s k are no error, only rare.

    Subclasses define ``image_loss`` and ``default_sampler``; their configuration has ``image_channels``,
    ``intensity``, ``peak`` and ``consistency_iterations``.
    """

    @abstractmethod
    def image_loss(self, images: Tensor) -> Tensor:
        """Return the training loss of clean images (B', C, H, W) in [-1, 1], a scalar.

        What is random comes from torch's default generator, which the training engine seeds and keeps.
        """

    @abstractmethod
    def default_sampler(self) -> Sampler:
        """Return how :meth:`forward` reconstructs: in validation, say."""

    def training_loss(self, batch: TrainingBatch, loss: Loss = "l1") -> Tensor:
        """Return :meth:`image_loss` of the true images; measurements and operator do not matter.

        Parameters
        ----------
        batch
            Measurements, operator and truth.
        loss
            Must be the default: a prior has a loss of its own.
        """
        self._check_loss(loss)
        self._check(batch.operator)
        unit = self.unit_of(batch.target)
        return self.image_loss(self._to_network(batch.target / per_sample(unit, batch.target), batch.operator))

    @torch.no_grad()
    def reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        sampler: Sampler,
        *,
        noise: float = 0.0,
        unit: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return images (B, *operator.image_shape) in the units of the data; zero where the measurements are.

        Parameters
        ----------
        measurements
            (B, *operator.data_shape).
        operator
            On images (C, H, W).
        sampler
            What reconstructs.
        noise
            Standard deviation of the noise of A / ‖A‖, as a share of the intensity s k, about that of the brightest
            pixels; 0 for exact data.
        unit
            What :meth:`unit` returned for these measurements, for the next of several draws; None asks it.
        generator
            Of what is random.
        progress
            Called with (network calls done, network calls in all).
        """
        self._check(operator)
        unit = self.unit(measurements, operator) if unit is None else unit
        problem = self._problem(measurements, operator, noise, unit)
        images = sampler(self, problem, generator, progress)
        if not operator.image_dtype.is_complex:
            images = (images + 1) / 2
        images = images_of(images, operator, images.new_zeros(()))
        signal = measurements.flatten(1).abs().amax(1) > 0  # a network makes something even of nothing
        return images * per_sample(unit * signal, images)

    def forward(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return the reconstruction by :meth:`default_sampler`, with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        return self.reconstruct(measurements, operator, self.default_sampler(), generator=generator)

    @torch.no_grad()
    def unit(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return the intensity s k that becomes 1, (B,), of images that are known by their measurements."""
        if self.settings.intensity is not None:
            return self.unit_of(measurements)  # only their number counts
        return self.unit_of(total_variation(measurements, operator, name=f"{type(self).__name__}, intensity"))

    def unit_of(self, images: Tensor) -> Tensor:
        """Return the intensity s k that becomes 1, (B,)."""
        fixed = self.settings.intensity
        scale = energy_median(images) if fixed is None else images.real.new_full((len(images),), float(fixed))
        return torch.where(scale > 0, scale, 1) * self.settings.peak

    def _problem(self, measurements: Tensor, operator: LinearOperator, noise: float, unit: Tensor) -> InverseProblem:
        """Return the measurements in units of the network."""
        bound = operator.norm_bound()
        y = measurements / per_sample(unit * bound, measurements)
        unitary = operator * (1 / bound)
        initial, sigma = self._to_network(unitary.initial(y), operator), noise
        if not operator.image_dtype.is_complex:
            ones = torch.ones(len(y), *operator.image_shape, dtype=y.dtype, device=y.device)
            y, sigma = 2 * y - unitary(ones), 2 * noise
        return InverseProblem(y, unitary, initial, sigma, self.settings.consistency_iterations, common_noise=True)

    def _check_loss(self, loss: Loss) -> None:
        if loss != "l1":
            raise UsageError(
                f"training.loss: {type(self).__name__} has a loss of its own, got {loss!r}; remove the key"
            )

    def _to_network(self, images: Tensor, operator: LinearOperator) -> Tensor:
        """Return images (B, *operator.image_shape) in units of s k as those of the network, (B', C, H, W)."""
        channels = network_images(images, self.settings.image_channels)
        return channels if operator.image_dtype.is_complex else 2 * channels - 1

    def _images(self, y: Tensor, operator: LinearOperator, initial: Tensor) -> Tensor:
        raise NotImplementedError("a prior reconstructs by a sampler")
