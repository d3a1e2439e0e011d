"""Lesions that no training image holds: a trained model must keep them.

They are ellipses put into held-back slices before these are measured. Contrast is the mean of a lesion's core less
that of a ring around it; what the anatomy alone contributes to that, the same reconstruction without lesions, is
subtracted. Contrast kept is that of the reconstruction over that of the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medrecon.datasets import GroundTruth
from medrecon.reconstructors import Reconstructor

from .case import Case, Plane, plane_of
from .methods import BASELINE
from .mri import NOISE, Setup, measured_case, plane_of_truth
from .pictures import file_name, sheet
from .score import Rows, mean, mean_rows, row

CONTRAST = 0.3
TOLERANCE = 0.2
# half axes in pixels, and the sign of the contrast
SHAPES = ((3.0, 3.0, 1), (6.0, 4.0, -1), (4.0, 5.0, 1), (3.0, 6.0, -1))
_APART = 24
_RING = 4.0


@dataclass(frozen=True)
class Lesion:
    """A place, half axes along rows and columns, and the sign of the contrast."""

    row: int
    column: int
    axes: tuple[float, float]
    sign: int

    def distance(self, shape: tuple[int, int]) -> Plane:
        """Return how far pixels lie outside the ellipse, in pixels, below 0 inside."""
        y, x = np.mgrid[: shape[0], : shape[1]]
        radius = np.hypot((y - self.row) / self.axes[0], (x - self.column) / self.axes[1])
        return (radius - 1) * min(self.axes)

    def drawn_into(self, plane: Plane) -> Plane:
        """Return the image with the lesion, whose edge is a pixel wide."""
        share = np.clip(0.5 - self.distance(plane.shape), 0, 1)
        local = float(plane[self.distance(plane.shape) <= 0].mean())
        return plane + self.sign * CONTRAST * local * share

    def contrast(self, plane: Plane) -> float:
        """Return the mean of the core less that of a ring around the lesion."""
        distance = self.distance(plane.shape)
        core, ring = distance <= -0.5, (distance > 1) & (distance <= _RING)
        return float(plane[core].mean() - plane[ring].mean())


def place(plane: Plane, generator: np.random.Generator) -> list[Lesion]:
    """Return lesions apart from one another, where the tissue is bright and even."""
    window = np.lib.stride_tricks.sliding_window_view(plane, (15, 15))
    middle, deviation = window.mean((2, 3)), window.std((2, 3))
    bright = middle > 0.3 * plane.max()
    if not bright.any():
        return []
    usable = bright & (deviation <= np.quantile(deviation[bright], 0.5))
    candidates = generator.permutation(np.argwhere(usable) + 7)
    found: list[Lesion] = []
    for y, x in candidates:
        if all(np.hypot(y - other.row, x - other.column) >= _APART for other in found):
            height, width, sign = SHAPES[len(found)]
            found.append(Lesion(int(y), int(x), (height, width), sign))
        if len(found) == len(SHAPES):
            break
    return found


def lesion_rows(
    setup: Setup, slices: Sequence[GroundTruth], methods: Mapping[str, Reconstructor], pictures: Path | None
) -> Rows:
    """Put lesions into slices and report the contrast that the methods keep."""
    work = f"lesions not in training, simulated MRI, {setup.name}"
    kept: dict[str, list[float]] = {}
    subjects: list[str] = []
    lowest: tuple[float, Plane, dict[str, Plane]] | None = None
    for index, truth in enumerate(slices):
        plane = plane_of_truth(truth)
        lesions = place(plane, np.random.default_rng(index))
        with_lesions = plane
        for lesion in lesions:
            with_lesions = lesion.drawn_into(with_lesions)
        pair = [_measured(image, setup, index, truth) for image in (plane, with_lesions)]
        images = {who: [_reconstructed(method, case) for case in pair] for who, method in methods.items()}
        images["fully sampled"] = [_fully_sampled(image, index) for image in (plane, with_lesions)]
        added = [lesion.contrast(with_lesions) - lesion.contrast(plane) for lesion in lesions]
        for who, (without, found) in images.items():
            shares = [
                (lesion.contrast(found) - lesion.contrast(without)) / true
                for lesion, true in zip(lesions, added, strict=True)
            ]
            kept.setdefault(who, []).extend(shares)
            if who not in ("fully sampled", BASELINE) and shares and (lowest is None or min(shares) < lowest[0]):
                shown = {name: part[1] for name, part in images.items()}
                lowest = min(shares), with_lesions, shown
        subjects += [truth.subject or truth.source.volume] * len(lesions)
    if pictures is not None and lowest is not None:
        sheet(pictures / f"{file_name(work)}-worst.png", lowest[1], lowest[2])
    rows: Rows = []
    print(f"\n{work}: {len(subjects)} lesions in {len(slices)} slices, contrast kept, 1 is all")
    for who, shares in kept.items():
        average = mean(shares, subjects)
        within = float(np.mean(np.abs(np.array(shares) - 1) <= TOLERANCE))
        rows += mean_rows(work, who, "contrast kept", average)
        figures = {"lowest": min(shares), "highest": max(shares), "share of lesions within 20 %": within}
        rows += [row(work, who, f"contrast kept, {key}", value) for key, value in figures.items()]
        half = "" if average.half is None else f" ± {average.half:.3f}"
        verdict = "ok" if abs(average.value - 1) <= TOLERANCE else "NOT within 20 %"
        print(
            f"  {who:26} {average.value:.3f}{half}, {min(shares):.2f} to {max(shares):.2f}, "
            f"{within:.0%} of the lesions within 20 %: {verdict}"
        )
    return rows


def _measured(plane: Plane, setup: Setup, index: int, truth: GroundTruth) -> Case:
    subject = truth.subject or truth.source.volume
    return measured_case(torch.from_numpy(plane), setup, index, str(truth.source), subject)


def _reconstructed(method: Reconstructor, case: Case) -> Plane:
    return plane_of(method(case.measurements, case.operator, generator=torch.Generator().manual_seed(0)))


def _fully_sampled(plane: Plane, index: int) -> Plane:
    """Return the magnitude of the truth with the noise of a fully sampled scan by one coil."""
    random = np.random.default_rng(index)
    level = NOISE * plane.max()
    return np.hypot(plane + level * random.standard_normal(plane.shape), level * random.standard_normal(plane.shape))
