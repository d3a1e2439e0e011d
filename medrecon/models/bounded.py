"""Learned scalars that stay where they belong."""

import math

import torch
from torch import Tensor, nn


class Bounded(nn.Module):
    r"""Learned numbers within an open interval, :math:`low + (high - low) · \sigma(\theta)`.

    The published code leaves α and v free: α = 1.001 makes the loss NaN, a small v the rebuilt states noise.

    Parameters
    ----------
    values
        Where they start, (n,); those at or beyond a bound start just inside.
    low, high
        The interval.
    """

    def __init__(self, values: Tensor, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        # no numbers, nothing to learn: a chain may be empty, and DDP waits for the gradient of all that is learned
        self.theta = nn.Parameter(self.inverse(values), requires_grad=values.numel() > 0)

    def inverse(self, values: Tensor) -> Tensor:
        """Return θ for given values, |θ| at most 16."""
        share = (values.double() - self.low) / (self.high - self.low)
        limit = 1 / (1 + math.exp(16))
        return torch.logit(share.clamp(limit, 1 - limit)).float()

    def forward(self) -> Tensor:
        """Return the values, (n,)."""
        return self.low + (self.high - self.low) * torch.sigmoid(self.theta)

    def extra_repr(self) -> str:
        """Name the interval."""
        return f"{self.theta.numel()} in ({self.low}, {self.high})"
