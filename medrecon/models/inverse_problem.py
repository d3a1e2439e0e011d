"""Measurements of images as a prior sees them: in units of its network, drawn to the data step by step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.models.sampling import white_noise
from medrecon.models.step import consistent
from medrecon.operators.base import LinearOperator


@dataclass(frozen=True)
class InverseProblem:
    r"""y = A u + n with images u in [-1, 1] as real channels, ‖A‖ <= 1.

    Parameters
    ----------
    y
        Measurements (B, *operator.data_shape).
    operator
        A.
    initial
        x_init as images of the network, real channels (B', C, H, W).
    noise
        σ_y, the standard deviation of n (of its real and of its imaginary part where it is complex), 0 for exact data.
    iterations
        Of the solver where A has no closed-form pseudo-inverse, see
        :func:`~medrecon.models.data_consistency.data_consistency`.
    common_noise
        Whether all images get the same noise, so that none depends on its neighbours.
    """

    y: Tensor
    operator: LinearOperator
    initial: Tensor
    noise: float = 0.0
    iterations: int = 10
    common_noise: bool = False

    @property
    def shape(self) -> torch.Size:
        """(B', C, H, W)."""
        return self.initial.shape

    def drawn(self, images: Tensor, share: float = 1.0) -> Tensor:
        r"""Return u - λ A⁺(A u - y), for λ = 1 the range-null-space step.

        Without a closed form of A⁺ it is the minimiser of :math:`w ‖A z - y‖² + ‖z - u‖²` with λ = w / (1 + w).

        Parameters
        ----------
        images
            u, real channels.
        share
            λ, from 0 (nothing is done) to 1.
        """
        if share <= 0:
            return images
        weight = None if share >= 1 else images.new_full((1,), share / (1 - share))
        return consistent(images, self.y, self.operator, weight, self.iterations)

    def start(self) -> Tensor:
        """Return A⁺ y, or what comes near it: zero drawn to the data."""
        return self.drawn(torch.zeros_like(self.initial))

    def draw_noise(self, generator: torch.Generator | None) -> Tensor:
        """Return white noise of the images' shape."""
        return white_noise(self.initial[0] if self.common_noise else self.initial, generator).expand(self.shape)
