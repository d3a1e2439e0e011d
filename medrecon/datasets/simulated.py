"""Measurements of known images, simulated anew whenever they are asked for."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medrecon.datasets.batch import TrainingSample
from medrecon.datasets.draws import Draws
from medrecon.datasets.ground_truth import GroundTruth
from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.prelog import line_integrals
from medrecon.operators.recipes import Recipe
from medrecon.simulation import simulate, smooth_phase
from medrecon.simulation.photons import photon_counts

_TRIES = 8


class SimulatedDataset(Dataset[TrainingSample]):
    """Each slice measured by an operator that the recipe draws for it.

    What is drawn (patch, orientation, phase, mask, coils, noise) depends on seed, epoch and index only:
    not on the order of calls, nor on the number of workers. A validation set never calls
    :meth:`set_epoch`, so it always holds the same measurements.

    Parameters
    ----------
    images
        The truth, for example of :func:`~medrecon.datasets.load_ground_truth`.
    recipe
        Of the acquisition, see :func:`~medrecon.operators.recipes.load_recipe`; of several each sample draws
        one, whose name becomes the ``acquisition`` of its source. Samples of one batch must have operators
        of one class and shape, so several coil counts want a batch size of 1.
    patch
        Side of random square patches, which avoid air; None for whole slices.
    augment
        Whether to turn by quarters (images that are not square by halves) and to mirror.
    noise
        Range from which the relative noise of a sample is drawn, see :func:`~medrecon.simulation.simulate`.
    counts
        Of X-rays instead: range of the photons a ray without an object, drawn on a logarithmic scale,
        see :func:`~medrecon.simulation.photons.photon_counts`; measurements stay line integrals.
    contrast
        Largest change of the contrast: magnitudes m of an image with maximum 1 become m^γ, with log γ drawn
        between plus and minus this.
    phase
        Whether real images get a smooth random phase where the operator wants complex ones.
    seed
        Of everything.
    by_volume
        Whether all slices of a volume are measured by the same one of several recipes, as scores per
        volume need it.

    Examples
    --------
    >>> import torch
    >>> from medrecon.datasets import GroundTruth, SimulatedDataset, collate
    >>> from medrecon.operators.recipes import load_recipe
    >>> images = [GroundTruth(torch.rand(80, 64))] * 4
    >>> data = SimulatedDataset(images, load_recipe("mri-singlecoil-4x"), patch=48, augment=True)
    >>> loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True, collate_fn=collate)
    >>> next(iter(loader)).measurements.shape
    torch.Size([2, 1, 48, 48])
    """

    def __init__(
        self,
        images: Sequence[GroundTruth],
        recipe: Recipe | Sequence[Recipe],
        *,
        patch: int | None = None,
        augment: bool = False,
        noise: tuple[float, float] = (0.0, 0.0),
        counts: tuple[float, float] | None = None,
        contrast: float = 0.0,
        phase: bool = True,
        seed: int = 0,
        by_volume: bool = False,
    ) -> None:
        low, high = noise
        if not 0 <= low <= high < float("inf"):
            raise UsageError(f"SimulatedDataset: noise is a range (low, high) with 0 <= low <= high, got {noise}")
        if counts is not None and not 1 <= counts[0] <= counts[1] < float("inf"):
            raise UsageError(f"SimulatedDataset: counts is a range (low, high) with 1 <= low <= high, got {counts}")
        if patch is not None:
            small = [truth for truth in images if min(truth.image.shape) < patch]
            if patch < 1 or small:
                found = f"; {small[0].source} has {tuple(small[0].image.shape)} pixels" if small else ""
                raise UsageError(
                    f"SimulatedDataset: patch must lie between 1 and the size of the images, got {patch}{found}"
                )
        self.images = images
        self.recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
        if not self.recipes or not 0 <= contrast < float("inf"):
            raise UsageError(
                f"SimulatedDataset: expected at least one recipe and contrast >= 0, got {len(self.recipes)} recipes "
                f"and contrast {contrast}"
            )
        self.patch = patch
        self.augment = augment
        self.noise = noise
        self.counts = counts
        self.contrast = contrast
        self.by_volume = by_volume
        self.phase = phase
        self.seed = seed
        self._draws = Draws(seed)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.images)

    def set_epoch(self, epoch: int) -> None:
        """Draw other patches, masks and noise from now on, in running workers as well."""
        self._draws.set_epoch(epoch)

    def volume_of(self, index: int) -> str:
        """Return which volume a sample belongs to."""
        return self.images[index].source.volume

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return what samples of a batch need to have in common: rows and columns."""
        return (self.patch, self.patch) if self.patch else tuple(self.images[index].image.shape)

    def __getitem__(self, index: int) -> TrainingSample:
        """Return a measured slice."""
        generator = self._draws.generator(index)
        truth = self.images[index]
        recipe = self._recipe(truth, generator)
        image = self._patch(truth.image, generator)
        if self.contrast:
            gamma = math.exp(self.contrast * (2 * float(torch.rand((), generator=generator)) - 1))
            image = _with_contrast(image, gamma)
        if self.augment:
            quarters, mirrored = (int(torch.randint(high, (1,), generator=generator)) for high in (4, 2))
            image = torch.rot90(image, quarters if image.shape[0] == image.shape[1] else quarters // 2 * 2)
            image = image.flip(0) if mirrored else image
        height, width = image.shape
        operator = recipe.draw((height, width), generator, pixel_size=truth.pixel_size)
        if operator.image_dtype.is_complex and not image.is_complex():
            turn = smooth_phase((height, width), generator) if self.phase else torch.zeros(height, width)
            image = torch.polar(image.float(), turn)
        target = image[None, None].expand(1, *operator.image_shape).to(operator.image_dtype)
        low, high = self.noise
        level = low + (high - low) * float(torch.rand((), generator=generator))
        measurements = simulate(target, operator, noise=level, generator=generator).measurements
        if self.counts is not None:
            measurements = self._photons(measurements, operator, generator)
        source = truth.source if len(self.recipes) == 1 else truth.source._replace(acquisition=recipe.name)
        return TrainingSample(measurements, operator, target, source)

    def _recipe(self, truth: GroundTruth, generator: torch.Generator) -> Recipe:
        if len(self.recipes) == 1:
            return self.recipes[0]
        if self.by_volume:
            name = f"{self.seed} {truth.source.volume}"
            return self.recipes[int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(self.recipes)]
        return self.recipes[int(torch.randint(len(self.recipes), (1,), generator=generator))]

    def _photons(self, lines: Tensor, operator: LinearOperator, generator: torch.Generator) -> Tensor:
        if self.counts is None or not isinstance(operator, XRayTransform):
            names = ", ".join(repr(recipe.name) for recipe in self.recipes)
            raise UsageError(f"SimulatedDataset: counts are for X-rays, recipe {names} is no CT")
        low, high = self.counts
        photons = low * (high / low) ** float(torch.rand((), generator=generator))
        return line_integrals(photon_counts(lines, counts=photons, generator=generator), i0=photons)[0].to(lines.dtype)

    def _patch(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return the first of some random patches with half the mean of the image, else that around its maximum."""
        if self.patch is None:
            return image
        size, wanted = self.patch, 0.5 * float(image.abs().mean())
        for _ in range(_TRIES):
            top, left = (int(torch.randint(length - size + 1, (1,), generator=generator)) for length in image.shape)
            piece = image[top : top + size, left : left + size]
            if float(piece.abs().mean()) >= wanted:
                return piece
        row, column = divmod(int(image.abs().argmax()), image.shape[1])
        top, left = (
            min(max(place - size // 2, 0), length - size)
            for place, length in zip((row, column), image.shape, strict=True)
        )
        return image[top : top + size, left : left + size]


def _with_contrast(image: Tensor, gamma: float) -> Tensor:
    """Return the image with magnitudes (m / max m)^γ · max m, its sign or phase unchanged."""
    magnitude = image.abs()
    peak = magnitude.amax()
    if not bool(peak > 0):
        return image
    relative = magnitude / peak
    return image * torch.where(relative > 0, relative, 1) ** (gamma - 1)
