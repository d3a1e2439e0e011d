"""The training loss of the Directly Denoising Diffusion Model, for any network."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medrecon.datasets.source import Source
from medrecon.errors import UsageError
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.models.estimates import EstimatePolicy, Estimator, RecomputedEstimate
from medrecon.models.pseudo_huber import pseudo_huber

Distance = Callable[[Tensor, Tensor], Tensor]
"""d(x, y) of each sample: (B, ...) twice to (B,)."""


def relative_pseudo_huber(share: float) -> Distance:
    r"""Return :func:`~medrecon.models.pseudo_huber.pseudo_huber` with c = ``share`` √d, of any size of image."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pseudo_huber(x, y, share * math.sqrt(x[0].numel()))

    return distance


def mean_square(x: Tensor, y: Tensor) -> Tensor:
    """Return ‖x - y‖² / d of each sample, (B,): the loss whose optimum is the posterior mean."""
    return (x - y).square().flatten(1).mean(1)


def pseudo_lpips(lpips_fn: Distance, c: float) -> Distance:
    r"""Return :math:`d(x, y) = \sqrt{\mathrm{LPIPS}(x, y) + c^2} - c` (arXiv:2405.13540, section 3).

    None comes with this package, on purpose: LPIPS compares the features of a network for the colour photographs of
    ImageNet. They say little about MRI and CT, whose contrasts such a network has never seen, and FID, by which the
    published results are judged, favours whatever was trained with the same features, as the authors say themselves.

    Parameters
    ----------
    lpips_fn
        LPIPS(x, y) >= 0 of each sample, (B,), differentiable. Images come as they are, in [-1, 1]: it maps and
        enlarges them as its network wants.
    c
        Above 0; the published code has 1.4e-4.

    Raises
    ------
    UsageError
        For another c; when called, for an ``lpips_fn`` that does not return one number a sample.

    Examples
    --------
    >>> import torch
    >>> distance = pseudo_lpips(lambda x, y: (x - y).flatten(1).abs().mean(1), 1e-3)
    >>> distance(torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)).shape
    torch.Size([3])
    """
    if not 0 < c < math.inf:
        raise UsageError(f"pseudo_lpips: c must be a number above 0, got {c}")

    def distance(x: Tensor, y: Tensor) -> Tensor:
        found = lpips_fn(x, y)
        if found.shape != x.shape[:1]:
            raise UsageError(
                f"pseudo_lpips: lpips_fn must return one number a sample, {tuple(x.shape[:1])}, got "
                f"{tuple(found.shape)}; ask it for no reduction, and flatten its result"
            )
        return (found + c**2).sqrt() - c

    return distance


def dddm_loss(
    f: Estimator,
    images: Tensor,
    start: Tensor,
    scheduler: DDDMScheduler,
    *,
    distance: Distance,
    estimates: EstimatePolicy | None = None,
    sources: Sequence[Source] = (),
) -> Tensor:
    r"""Return the loss of a batch, a scalar, with times and noise of torch's default generator.

    .. math:: E\, d\bigl( f(x_0^{est}, x_t, t),\, x_0 \bigr), \qquad t \sim U\{0 … T - 1\}

    (arXiv:2405.13540, algorithm 1; not the loss of its published code, which is that of arXiv:2405.21059).

    Parameters
    ----------
    f
        f(x_0^est, x_t, t), estimates of x_0 like its first argument; t is (B,). Data consistency, where there is
        any, is part of it.
    images
        x_0, (B, ...).
    start
        The estimate that reconstruction or generation begins with, like the images: A⁺y, or noise.
    scheduler
        The noise process.
    distance
        d.
    estimates
        Where x_0^est is from; recomputed by default.
    sources
        Where each image is from; for stores.
    """
    policy = RecomputedEstimate() if estimates is None else estimates
    times = scheduler.draw_times(len(images), images.device)
    noisy = scheduler.add_noise(images, torch.randn_like(images), times)
    context = policy.contexts(f, images, start, times, scheduler, sources)
    found = f(context, noisy, times)
    policy.keep(found.detach(), sources)
    return distance(found, images).mean()
