"""Chest CT that was held back, measured by parallel beams with few views or few photons."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch

from medrecon.datasets import GroundTruth
from medrecon.operators.ct.prelog import line_integrals
from medrecon.operators.recipes import Recipe
from medrecon.simulation.photons import photon_counts

from .case import Case, Work

SETUPS = ((30, 1e5), (60, 1e5), (90, 1e5), (180, 1e5), (60, 1e4))


def case(truth: GroundTruth, views: int, counts: float, seed: int) -> Case:
    """Measure a slice in 1/mm, whose values are proportional to HU + 1000."""
    generator = torch.Generator().manual_seed(seed)
    recipe = Recipe("parallel", "parallel beams", "ct-parallel", {"views": views})
    shape = (truth.image.shape[0], truth.image.shape[1])
    operator = recipe.draw(shape, generator, pixel_size=truth.pixel_size)
    with torch.no_grad():
        photons = photon_counts(operator(truth.image[None, None].float()), counts=counts, generator=generator)
    y = line_integrals(photons, i0=counts)[0]
    return Case(str(truth.source), truth.subject or truth.source.volume, y, operator, truth.image.numpy())


def works(held_back: Sequence[GroundTruth], tuning: Sequence[GroundTruth], *, quick: bool) -> Iterable[Work]:
    """Yield the work."""
    for views, counts in SETUPS[1:2] if quick else SETUPS:
        name = f"CT, {views} parallel views, {counts:.0e} photons a ray"
        yield Work(
            name, "ct", partial(cases, held_back, views, counts, 0), name, partial(cases, tuning, views, counts, 10_000)
        )


def cases(slices: Sequence[GroundTruth], views: int, counts: float, first_seed: int) -> list[Case]:
    """Measure slices, each with photons of its own."""
    return [case(truth, views, counts, first_seed + index) for index, truth in enumerate(slices)]
