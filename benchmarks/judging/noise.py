"""K-space without any object: a trained model must not make anatomy of it.

A result that resembles a brain more than the zero-filled image of the same noise does would be invented.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from medrecon.datasets import GroundTruth
from medrecon.reconstructors import Reconstructor

from .case import Plane, plane_of
from .mri import Setup, noise_only, plane_of_truth
from .pictures import file_name, sheet
from .score import Rows, mean, mean_rows

DRAWS = 4


def noise_rows(
    setup: Setup,
    training: Sequence[GroundTruth],
    methods: Mapping[str, Reconstructor],
    pictures: Path | None,
) -> Rows:
    """Reconstruct noise; compare with the training slices and their mean.

    The coil maps are true ones, for there is nothing to estimate any from.
    """
    work = f"noise only, simulated MRI, {setup.name}"
    anatomy = [plane_of_truth(truth) / plane_of_truth(truth).max() for truth in training]
    anatomy.append(np.mean(anatomy, axis=0))
    found: dict[str, dict[str, list[float]]] = {}
    images: dict[str, Plane] = {}
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(20_000 + draw)
        y, operator = noise_only(setup, anatomy[-1].shape, generator)
        base = operator.adjoint(y)
        for who, method in methods.items():
            image = method(y, operator, generator=torch.Generator().manual_seed(0))
            images[who] = plane_of(image)
            figures = {
                "correlation with the mean anatomy": correlation(images[who], anatomy[-1]),
                "highest correlation with an anatomy": max(correlation(images[who], other) for other in anatomy),
                "intensity over the zero-filled one": float(image.abs().square().mean() / base.abs().square().mean())
                ** 0.5,
            }
            for key, value in figures.items():
                found.setdefault(who, {}).setdefault(key, []).append(value)
    if pictures is not None:
        sheet(pictures / f"{file_name(work)}.png", None, images)
    rows: Rows = []
    print(f"\n{work}: {DRAWS} draws, compared with {len(training)} training slices and their mean")
    for who, columns in found.items():
        means = {key: mean(values, [""] * len(values)) for key, values in columns.items()}
        for key, average in means.items():
            rows += mean_rows(work, who, key, average)
        print(f"  {who:26} " + ", ".join(f"{key} {average.value:.3f}" for key, average in means.items()))
    return rows


def correlation(image: Plane, other: Plane) -> float:
    """Return Pearson's correlation of two images, 0 where one is flat."""
    first, second = image - image.mean(), other - other.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / size if size > 0 else 0.0
