"""What a flow map does without measurements: images from noise, noise from images, and images between images."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.models.bcm_scheduler import FlowMap, times_of
from medrecon.models.sampling import white_noise
from medrecon.operators.solvers import per_sample

FIRST_NOISE = 0.07
"""ε_0, the noise that an image is given before it is inverted: the lowest times are hardly trained."""


def follow(f: FlowMap, x: Tensor, times: Sequence[float]) -> Tensor:
    r"""Return x carried from times[0] through all times to the last, a network call each.

    :math:`x ← f(x, t_i, t_{i+1})`. From σ_max down to σ_min this makes an image of inverted noise, in one step or
    more; deterministic.

    Parameters
    ----------
    f
        Such as :meth:`~medrecon.models.bcm.BidirectionalConsistencyModel.f`.
    x
        (B, ...), at the time times[0].
    times
        Rising or falling, at least two.
    """
    if len(times) < 2:
        raise UsageError(f"times: expected a first and a last one at least, got {list(times)}")
    for t, u in pairwise(times):
        x = f(x, times_of(x, t), times_of(x, u))
    return x


def generate(
    f: FlowMap,
    noise: Tensor,
    times: Sequence[float],
    zigzag: Sequence[tuple[float, float]] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return images made of noise, f(t_0 z, t_0, t_1) and so on.

    A zigzag (ε, τ) then adds little fresh noise, lets the model amplify it, and comes down again,

    .. math:: x ← f(f(x + ε z, ε, τ), τ, σ_{min}),

    which keeps the content, unlike noise of the size of τ. The authors' settings (arXiv:2403.18035):

    ============  ==================  =============  =====
    sampler       times               zigzag         calls
    ============  ==================  =============  =====
    one step      80, 0.002                          1
    ancestral     80, 2.4, 0.002                     2
    zigzag        80, 0.002           (0.1, 1.2)     3
    mixed         80, 3.0, 0.002      (0.12, 0.4)    4
    ============  ==================  =============  =====

    Parameters
    ----------
    f
        The flow map.
    noise
        z of standard deviation 1, in the shape of the images.
    times
        σ_max first, σ_min last.
    zigzag
        (ε, τ) of each.
    generator
        Of the fresh noise.
    """
    x = follow(f, times[0] * noise, times)
    for small, large in zigzag:
        x = follow(f, x + small * white_noise(x, generator), (small, large, times[-1]))
    return x


def generate_anew(
    f: FlowMap, noise: Tensor, times: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    r"""Return images by the multi-step sampling of consistency models, which needs no motion upwards.

    :math:`x ← f(x, t_i, σ_{min}) + \sqrt{t_{i+1}^2 - σ_{min}^2}\, z` with fresh noise for every time but the last
    (Song et al., ICML 2023, algorithm 1).

    Parameters
    ----------
    f, noise, times, generator
        As for :func:`generate`; the last time is σ_min.
    """
    bottom = times[-1]
    x = follow(f, times[0] * noise, (times[0], bottom))
    for t in times[1:-1]:
        x = follow(f, x + (t**2 - bottom**2) ** 0.5 * white_noise(x, generator), (t, bottom))
    return x


def invert(f: FlowMap, images: Tensor, times: Sequence[float], generator: torch.Generator | None = None) -> Tensor:
    """Return the noise that the images are made of, at the last time: follow(x + t_0 z), its deviation about σ_max.

    Parameters
    ----------
    f
        The flow map.
    images
        (B, ...).
    times
        Rising from a small noise, :data:`FIRST_NOISE` as a rule: (0.07, 80) is one call, (0.07, 15, 80) two.
    generator
        Of the small noise.
    """
    return follow(f, images + times[0] * white_noise(images, generator), times)


def restore(
    f: FlowMap,
    images: Tensor,
    up: Sequence[float],
    down: Sequence[float],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images like those of the training, near damaged ones, without knowing the damage (JPEG, say).

    They are inverted, with a first noise that drowns the artefacts, and generated again. Nothing makes them agree with
    any data; with a :data:`FIRST_NOISE` it is the round trip by which an inversion is judged.

    Parameters
    ----------
    f
        The flow map.
    images
        (B, ...).
    up
        Times of the inversion; the first is the noise, larger for stronger artefacts.
    down
        Times of the generation, from the last of ``up`` to σ_min.
    generator
        Of the first noise.
    """
    if not up or not down or up[-1] != down[0]:
        raise UsageError(f"restore: the way down starts where the way up ends, got {list(up)} and {list(down)}")
    return follow(f, invert(f, images, up, generator), down)


def interpolate(
    f: FlowMap,
    first: Tensor,
    second: Tensor,
    weights: Sequence[float],
    up: Sequence[float],
    down: Sequence[float],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images between two real ones, (W, B, ...): their inverted noise turned into each other.

    Parameters
    ----------
    f
        The flow map.
    first, second
        (B, ...).
    weights
        0 gives the first, 1 the second, each after its round trip.
    up, down
        Times of the inversion and of the generation.
    generator
        Of the small noise before the inversion.
    """
    start, end = (invert(f, images, up, generator) for images in (first, second))
    return torch.stack([follow(f, slerp(start, end, weight), down) for weight in weights])


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    r"""Return the spherical interpolation of each sample; a straight line where both have one direction.

    .. math:: \frac{\sin((1 - w) ψ)}{\sin ψ} a + \frac{\sin(w ψ)}{\sin ψ} b, \qquad \cos ψ = a·b / (‖a‖‖b‖)

    (Shoemake, SIGGRAPH 1985).
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    straight = sine < 1e-4
    sine = torch.where(straight, 1, sine)
    one = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / sine)
    other = torch.where(straight, weight, (weight * angle).sin() / sine)
    return per_sample(one, a) * a + per_sample(other, b) * b
