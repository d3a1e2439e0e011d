"""Bidirectional consistency training."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from medrecon.models.bcm_scheduler import FlowMap, times_of
from medrecon.models.pseudo_huber import pseudo_huber
from medrecon.operators.solvers import per_sample


def bidirectional_consistency_loss(
    f: nn.Module | tuple[FlowMap, FlowMap],
    images: Tensor,
    t_n: Tensor,
    t_n1: Tensor,
    t_end: Tensor,
    noise: Tensor,
    c: float,
    sigma_min: float = 0.002,
) -> Tensor:
    """Return the mean over a batch of both :func:`consistency_terms`, a scalar."""
    consistency, trajectory = consistency_terms(f, images, t_n, t_n1, t_end, noise, c, sigma_min)
    return (consistency + trajectory).mean()


def consistency_terms(
    f: nn.Module | tuple[FlowMap, FlowMap],
    images: Tensor,
    t_n: Tensor,
    t_n1: Tensor,
    t_end: Tensor,
    noise: Tensor,
    c: float,
    sigma_min: float = 0.002,
) -> tuple[Tensor, Tensor]:
    r"""Return the consistency loss and the soft trajectory constraint of each image, (B,) each.

    With :math:`x_{n+1} = x + t_{n+1} z`, :math:`x_n = x + t_n z` and d the
    :func:`~medrecon.models.pseudo_huber.pseudo_huber` distance,

    .. math::
        \frac{d(f_θ(x_{n+1}, t_{n+1}, σ_{min}), y)}{|t_{n+1} - t_n|}, \qquad
        \frac{d(f_{\barθ}(f_θ(x_{n+1}, t_{n+1}, t'), t', σ_{min}), y)}{|t_{n+1} - t'|}, \qquad
        y = \operatorname{sg} f_θ(x_n, t_n, σ_{min})

    (Li and He, arXiv:2403.18035, section 3.2). θ̄ are the current weights, frozen: the gradient of the second term
    passes through the *input* of the outer call, and so teaches the inner one, which goes up as well as down. All
    passes share their dropout mask.

    Parameters
    ----------
    f
        f_θ as a module, or f_θ and f_θ̄ as two functions.
    images
        x, (B, ...).
    t_n, t_n1, t_end
        t_n < t_{n+1} and t' ≠ t_{n+1}, (B,).
    noise
        z, like the images.
    c
        Of the distance.
    sigma_min
        Where the data are.
    """
    live, still = (f, frozen(f)) if isinstance(f, nn.Module) else f
    bottom = times_of(images, sigma_min)
    upper = images + per_sample(t_n1, images) * noise
    with torch.no_grad(), _rewound(images):
        target = live(images + per_sample(t_n, images) * noise, t_n, bottom)
    with _rewound(images):
        down = live(upper, t_n1, bottom)
    with _rewound(images):
        moved = live(upper, t_n1, t_end)
    around = still(moved, t_end, bottom)
    return (
        pseudo_huber(down, target, c) / (t_n1 - t_n).abs(),
        pseudo_huber(around, target, c) / (t_n1 - t_end).abs(),
    )


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """Return the module as a function whose gradient reaches its inputs, not its weights."""
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}

    def call(*inputs: Tensor) -> Tensor:
        result: Tensor = functional_call(module, weights, inputs)
        return result

    return call


def _rewound(images: Tensor) -> AbstractContextManager[None]:
    """Return a context after which torch's default generators are where they were."""
    return torch.random.fork_rng([images.device] if images.is_cuda else [])
