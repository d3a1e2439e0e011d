"""Complex MR images of 64 x 64 pixels, on which the diffusion priors are judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.simulation import smooth_phase

from .case import centred, spread
from .held_back import split, training_recipe

SIZE = 64


class SmallImages(NamedTuple):
    """Magnitudes of subjects that were trained on, and of others with the subject's name."""

    training: list[Tensor]
    held_back: list[tuple[str, Tensor]]


def small_images(models: Sequence[Path], data: Path, count: int) -> SmallImages:
    """Return the images of the training, and ``count`` of the subjects that all models held back."""
    slices = split(models, data)
    shrink = training_recipe(models[0], data).data.shrink[-1]  # type: ignore[union-attr]
    chosen = spread(slices.held_back, count)
    return SmallImages(
        [small(truth.image, shrink) for truth in slices.training],
        [(truth.subject or truth.source.volume, small(truth.image, shrink)) for truth in chosen],
    )


def small(image: Tensor, shrink: int) -> Tensor:
    """Return the magnitude on fewer pixels, cut or extended to a square."""
    pooled = torch.nn.functional.avg_pool2d(image.abs().float()[None], shrink)[0]
    return centred(pooled, SIZE)


def with_phase(planes: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Return magnitudes with a smooth phase each, (N, 1, H, W), the brightest pixel 1."""
    drawn = [torch.polar(plane / plane.max(), smooth_phase(tuple(plane.shape), generator)) for plane in planes]
    return torch.stack(drawn)[:, None]
