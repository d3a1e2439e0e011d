"""Sampling densities over centred k-space and weighted draws from them."""

from typing import Literal, get_args

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers.base import cpu_generator

Density = Literal["polynomial", "gaussian"]
DENSITIES: tuple[str, ...] = get_args(Density)


def normalised_radius(shape: tuple[int, ...]) -> Tensor:
    r"""Return :math:`\sqrt{\sum_d (k_d / k_{d,max})^2}` on the grid: 0 at zero frequency, 1 on the ellipse.

    The ellipse is the one inscribed into k-space; corners lie outside it, up to :math:`\sqrt{d}`.
    """
    axes = [(torch.arange(size, dtype=torch.float64) - size // 2) / max(size // 2, 1) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


def density_weights(radius: Tensor, density: Density, steepness: float) -> Tensor:
    r"""Return :math:`(1 - \rho)^p` (polynomial) or :math:`e^{-p \rho^2}` (gaussian) for steepness p.

    Steepness 0 is uniform. A floor keeps every position reachable.
    """
    if density == "gaussian":
        return torch.exp(-steepness * radius.square()).clamp(min=1e-4)
    return (1 - radius / max(float(radius.max()), 1.0)).clamp(min=0).pow(steepness).clamp(min=1e-4)


def weighted_choice(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose ``count`` positions without replacement, bool of the shape of ``weights``.

    Position i is in with a probability that grows with its weight; weight 0 is never chosen. These are
    the ``count`` smallest of exponential variables with rates ``weights``.
    """
    if int(torch.count_nonzero(weights)) < count:
        raise UsageError(
            f"{count} samples are wanted of {int(torch.count_nonzero(weights))} positions; raise acceleration"
        )
    uniform = torch.rand(weights.shape, dtype=torch.float64, generator=cpu_generator(generator))
    arrival = torch.where(weights > 0, -torch.log1p(-uniform) / weights, torch.inf)
    order = torch.argsort(arrival.flatten(), stable=True)
    chosen = torch.zeros(weights.numel(), dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.view(weights.shape)
