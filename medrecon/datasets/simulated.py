"""Measurements of known images, simulated anew whenever they are asked for."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from medrecon.datasets.acquired import acquire
from medrecon.datasets.batch import TrainingSample
from medrecon.datasets.draws import Draws
from medrecon.datasets.ground_truth import GroundTruth
from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.coils import MapMethod
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.prelog import line_integrals
from medrecon.operators.recipes import Recipe
from medrecon.simulation import simulate, smooth_phase
from medrecon.simulation.photons import photon_counts

Patch = int | tuple[int, int]
"""Side of a square, or at most so many rows and columns."""
T = TypeVar("T")
_TRIES = 8
_EDGE = 0.15


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
        Side of random square patches, which avoid air; or a pair, at most so many rows and columns, where a
        short image gives all it has; None for whole slices.
    patches
        Other patches for recipes of these names. Lines missing along one axis fold the image along it: such
        patches want all columns, and may have few rows.
    shrink
        Factors of which each sample draws one: so many pixels along each axis become one, before the patch is
        cut. A patch of a shrunken body is the whole body, with its long rays and few views.
    augment
        Whether to turn by quarters (by halves where that would change the shape of the sample) and to mirror.
    noise
        Range from which the relative noise of a sample is drawn, see :func:`~medrecon.simulation.simulate`.
    counts
        Of X-rays instead: range of the photons a ray without an object, drawn on a logarithmic scale,
        see :func:`~medrecon.simulation.photons.photon_counts`; measurements stay line integrals.
    contrast
        Largest change of the contrast: magnitudes m of an image with maximum 1 become m^γ, with log γ drawn
        between plus and minus this.
    inversion
        Share of the images whose contrast is turned round before, as T2 weighting does with T1: air stays black.
    truth
        "clean" is the image itself, "acquired" what a full acquisition with its noise would show, see
        :func:`~medrecon.datasets.acquired.acquire`; Cartesian MRI only.
    maps
        With an acquired truth, how coil sensitivities are estimated from the measurements; None knows them.
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
        patch: Patch | None = None,
        patches: Mapping[str, Patch] | None = None,
        shrink: Sequence[int] = (1,),
        augment: bool = False,
        noise: tuple[float, float] = (0.0, 0.0),
        counts: tuple[float, float] | None = None,
        contrast: float = 0.0,
        inversion: float = 0.0,
        truth: Literal["clean", "acquired"] = "clean",
        maps: MapMethod | None = None,
        phase: bool = True,
        seed: int = 0,
        by_volume: bool = False,
    ) -> None:
        low, high = noise
        if not 0 <= low <= high < float("inf"):
            raise UsageError(f"SimulatedDataset: noise is a range (low, high) with 0 <= low <= high, got {noise}")
        if counts is not None and not 1 <= counts[0] <= counts[1] < float("inf"):
            raise UsageError(f"SimulatedDataset: counts is a range (low, high) with 1 <= low <= high, got {counts}")
        if not 0 <= inversion <= 1:
            raise UsageError(f"SimulatedDataset: inversion is a share of the images, 0 to 1, got {inversion}")
        if not shrink or min(shrink) < 1:
            raise UsageError(f"SimulatedDataset: shrink holds factors from 1, got {tuple(shrink)}")
        largest = max(shrink)
        for size in (patch, *(patches or {}).values()):
            small = [slice_ for slice_ in images if isinstance(size, int) and min(slice_.image.shape) // largest < size]
            if small or (size is not None and min(_pair(size)) < 1):
                found = f"; {small[0].source} has {tuple(small[0].image.shape)} pixels" if small else ""
                raise UsageError(
                    f"SimulatedDataset: patch must lie between 1 and the size of the images, got {size}{found}"
                )
        self.images = images
        self.recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
        if not self.recipes or not 0 <= contrast < float("inf"):
            raise UsageError(
                f"SimulatedDataset: expected at least one recipe and contrast >= 0, got {len(self.recipes)} recipes "
                f"and contrast {contrast}"
            )
        self.patch = patch
        self.shrink = tuple(shrink)
        self.patches = dict(patches or {})
        self.truth = truth
        self.maps = maps
        self.augment = augment
        self.noise = noise
        self.counts = counts
        self.contrast = contrast
        self.inversion = inversion
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
        shape = tuple(length // max(self.shrink) for length in self.images[index].image.shape)
        return shape if self.patch is None else _within(shape, self.patch)

    def __getitem__(self, index: int) -> TrainingSample:
        """Return a measured slice."""
        generator = self._draws.generator(index)
        truth = self.images[index]
        recipe = self._recipe(truth, generator)
        factor = _one_of(self.shrink, generator)
        image = _shrunken(truth.image, factor)
        patch = self.patches.get(recipe.name, self.patch)
        if self.augment:
            quarters, mirrored = (int(torch.randint(high, (1,), generator=generator)) for high in (4, 2))
            turned = patch is not None and _within(image.shape[::-1], patch) == _within(image.shape, patch)
            image = torch.rot90(image, quarters if turned or image.shape[0] == image.shape[1] else quarters // 2 * 2)
            image = image.flip(0) if mirrored else image
        image = _patch(image, patch, generator)
        if self.inversion and float(torch.rand((), generator=generator)) < self.inversion:
            image = _inverted(image, float(torch.rand((), generator=generator)))
        if self.contrast:
            gamma = math.exp(self.contrast * (2 * float(torch.rand((), generator=generator)) - 1))
            image = _with_contrast(image, gamma)
        height, width = image.shape
        operator = recipe.draw((height, width), generator, pixel_size=truth.pixel_size * factor)
        if operator.image_dtype.is_complex and not image.is_complex():
            turn = smooth_phase((height, width), generator) if self.phase else torch.zeros(height, width)
            image = torch.polar(image.float(), turn)
        target = image[None, None].expand(1, *operator.image_shape).to(operator.image_dtype)
        low, high = self.noise
        level = low + (high - low) * float(torch.rand((), generator=generator))
        if self.truth == "acquired":
            if not isinstance(operator, CartesianMRI):
                raise UsageError(
                    f"SimulatedDataset: an acquired truth is for Cartesian MRI, recipe {recipe.name!r} is none"
                )
            measurements, operator, target = acquire(target, operator, noise=level, maps=self.maps, generator=generator)
        else:
            measurements = simulate(target, operator, noise=level, generator=generator).measurements
        if self.counts is not None:
            measurements = self._photons(measurements, operator, generator)
        source = truth.source if len(self.recipes) == 1 else truth.source._replace(acquisition=recipe.name)
        return TrainingSample(measurements, operator, target, source)

    def _recipe(self, truth: GroundTruth, generator: torch.Generator) -> Recipe:
        if self.by_volume:
            name = f"{self.seed} {truth.source.volume}"
            return self.recipes[int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(self.recipes)]
        return _one_of(self.recipes, generator)

    def _photons(self, lines: Tensor, operator: LinearOperator, generator: torch.Generator) -> Tensor:
        if self.counts is None or not isinstance(operator, XRayTransform):
            names = ", ".join(repr(recipe.name) for recipe in self.recipes)
            raise UsageError(f"SimulatedDataset: counts are for X-rays, recipe {names} is no CT")
        low, high = self.counts
        photons = low * (high / low) ** float(torch.rand((), generator=generator))
        return line_integrals(photon_counts(lines, counts=photons, generator=generator), i0=photons)[0].to(lines.dtype)


def _one_of(items: Sequence[T], generator: torch.Generator) -> T:
    """Return one of some things; of one thing, without drawing a number."""
    return items[0] if len(items) == 1 else items[int(torch.randint(len(items), (1,), generator=generator))]


def _pair(patch: Patch) -> tuple[int, int]:
    return (patch, patch) if isinstance(patch, int) else patch


def _within(shape: tuple[int, ...], patch: Patch) -> tuple[int, ...]:
    """Return rows and columns of a patch of such an image."""
    return tuple(min(pair) for pair in zip(shape, _pair(patch), strict=True))


def _patch(image: Tensor, patch: Patch | None, generator: torch.Generator) -> Tensor:
    """Return the first of some random patches with half the mean of the image, else that around its maximum."""
    if patch is None:
        return image
    sizes, wanted = _within(tuple(image.shape), patch), 0.5 * float(image.abs().mean())

    def cut(corner: list[int]) -> Tensor:
        (top, left), (rows, columns) = corner, sizes
        return image[top : top + rows, left : left + columns]

    room = [length - size for length, size in zip(image.shape, sizes, strict=True)]
    for _ in range(_TRIES):
        piece = cut([int(torch.randint(space + 1, (1,), generator=generator)) for space in room])
        if float(piece.abs().mean()) >= wanted:
            return piece
    brightest = divmod(int(image.abs().argmax()), image.shape[1])
    return cut(
        [min(max(place - size // 2, 0), space) for place, size, space in zip(brightest, sizes, room, strict=True)]
    )


def _shrunken(image: Tensor, factor: int) -> Tensor:
    """Return the means of squares of so many pixels; what does not fill a square is left out."""
    if factor == 1:
        return image
    rows, columns = (length // factor * factor for length in image.shape)
    return image[:rows, :columns].unflatten(1, (-1, factor)).unflatten(0, (-1, factor)).mean((1, 3))


def _inverted(image: Tensor, share: float) -> Tensor:
    """Return the image with magnitudes min(1, m / .15) (1.1 + .3 s - m), for m = magnitude / maximum."""
    m = _relative(image)
    turned = (m / _EDGE).clamp_max(1) * (1.1 + 0.3 * share - m)
    return image * torch.where(m > 0, turned / torch.where(m > 0, m, 1), 0)


def _with_contrast(image: Tensor, gamma: float) -> Tensor:
    """Return the image with magnitudes (m / max m)^γ · max m, its sign or phase unchanged."""
    m = _relative(image)
    return image * torch.where(m > 0, m, 1) ** (gamma - 1)


def _relative(image: Tensor) -> Tensor:
    """Return magnitudes divided by the largest; zero for an empty image."""
    magnitude = image.abs()
    return magnitude / magnitude.amax().clamp_min(torch.finfo(magnitude.dtype).tiny)
