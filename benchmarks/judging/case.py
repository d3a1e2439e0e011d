"""One measured slice, and a piece of work: slices that are all measured alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.datasets.batch import centre_magnitude
from medrecon.operators import LinearOperator

Plane = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Measurements (1, *data_shape), the operator that a reconstruction assumes, and the truth (H, W).

    The truth is None where nobody knows it; ``subject`` says who is shown. ``hidden`` are measurements that the
    reconstruction does not get, with their operator.
    """

    name: str
    subject: str
    measurements: Tensor
    operator: LinearOperator
    truth: Plane | None
    hidden: tuple[Tensor, LinearOperator] | None = None


@dataclass(frozen=True)
class Published:
    """A figure of a paper, found on a test set of its own: for orientation only."""

    who: str
    psnr: float


@dataclass(frozen=True)
class Work:
    """What is measured in the same way: how to get the slices to judge on, and others to choose λ on.

    ``domain`` is mri, ct or cs and decides which methods are asked; works that are ``tuned_as`` the same share their λ.
    """

    name: str
    domain: str
    measure: Callable[[], Sequence[Case]]
    tuned_as: str
    tuning: Callable[[], Sequence[Case]]
    published: Sequence[Published] = field(default=())

    @cached_property
    def cases(self) -> Sequence[Case]:
        """The slices to judge on, measured when they are asked for first."""
        return self.measure()


def plane_of(image: Tensor) -> Plane:
    """Return what a reader sees of images (1, C, H, W): the magnitude over map sets, or the real image itself."""
    return centre_magnitude(image)[0].numpy().astype(np.float64)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return so many items at equal distances."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def centred(image: Tensor, size: int) -> Tensor:
    """Crop or pad the last two axes to a centred square."""
    for axis in (-2, -1):
        have = image.shape[axis]
        start = max(0, (have - size) // 2)
        image = image.narrow(axis, start, min(size, have))
        missing = size - image.shape[axis]
        if missing > 0:
            before = missing // 2
            padding = [0, 0, before, missing - before] if axis == -2 else [before, missing - before]
            image = torch.nn.functional.pad(image, padding)
    return image
