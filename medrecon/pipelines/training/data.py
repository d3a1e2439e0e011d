"""From a recipe to data sets for training and validation."""

import hashlib
import logging
import signal
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch.utils.data import DataLoader

from medrecon.datasets import (
    FastMRIDataset,
    GroundTruth,
    ScanDataset,
    SimulatedDataset,
    Source,
    TrainingBatch,
    Volume,
    VolumeBatchSampler,
    collate,
    index_folder,
    load_ground_truth,
)
from medrecon.datasets.simulated import Patch
from medrecon.datasets.source import distinct_names
from medrecon.errors import InputError, UsageError
from medrecon.io.options import ReadOptions
from medrecon.operators.recipes import Recipe, load_recipe
from medrecon.operators.samplers.registry import make_sampler
from medrecon.pipelines.training.recipe import (
    FastMRIData,
    ImageData,
    OperatorCard,
    PatchSize,
    PhantomData,
    ScanData,
    TrainingRecipe,
)
from medrecon.simulation import brain_phantom, random_ellipses

Data = FastMRIDataset | SimulatedDataset | ScanDataset
Progress = Callable[[float], None]
T = TypeVar("T")
_log = logging.getLogger(__name__)


class TrainingData(NamedTuple):
    """What a run learns from and is judged on.

    Attributes
    ----------
    train, validation
        Slices; no volume is in both.
    fingerprint
        SHA-256 of the names and sizes of all files (of images: names and number of slices).
    description
        For people.
    """

    train: Data
    validation: Data
    fingerprint: str
    description: str


def load_data(recipe: TrainingRecipe, progress: Progress | None = None) -> TrainingData:
    """Find the data of a recipe.

    Raises
    ------
    UsageError
        Where the recipe names none.
    InputError
        Where there are none.
    """
    data = recipe.data
    if isinstance(data, FastMRIData):
        return _fastmri(recipe, data, progress)
    if isinstance(data, ScanData):
        return _scans(recipe, data, progress)
    return _simulated(recipe, data)


def validation_data(recipe: TrainingRecipe, paths: Sequence[Path], progress: Progress | None = None) -> Data:
    """Return other data, measured as those that a recipe validates on: for ``medrecon evaluate``."""
    data = recipe.data
    if isinstance(data, FastMRIData):
        return _fastmri_set(recipe, data, _volumes(data, paths, progress), training=False)
    if isinstance(data, ScanData):
        return ScanDataset(_measured_files(paths), ReadOptions(mu_water=data.mu_water), training=False)
    if isinstance(data, ImageData):
        return _simulated_set(recipe, data, _images(data, paths), training=False)
    raise UsageError("phantoms take no --data; this model was trained on numerical phantoms")


def data_loader(
    data: Data, recipe: TrainingRecipe, *, training: bool, rank: int = 0, world: int = 1
) -> DataLoader[TrainingBatch | None]:
    """Return the batches of one process, see :class:`~medrecon.datasets.VolumeBatchSampler`; one worker validates.

    Workers live for one epoch: those that stay would end only when a garbage collector finds engine and loader.
    """
    batch_size = recipe.training.batch_size if training else recipe.validation.batch_size
    sampler = VolumeBatchSampler(data, batch_size, training=training, seed=recipe.seed, rank=rank, world=world)
    count = recipe.training.workers if training else min(1, recipe.training.workers)
    return DataLoader(
        data,  # type: ignore[arg-type]  # samples may be None, which collate knows
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=count,
        worker_init_fn=prepare_worker if count else None,
    )


def prepare_worker(_worker: int) -> None:
    """Keep a worker process to one thread, and let the main process alone decide when to stop.

    Several workers with several threads each slow one another down. Ctrl-C and many clusters signal all processes
    of a job at once; a worker that died of it would take the checkpoint with it. A second SIGTERM ends it.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: signal.signal(number, signal.SIG_DFL))


def _fastmri(recipe: TrainingRecipe, data: FastMRIData, progress: Progress | None) -> TrainingData:
    volumes = _volumes(data, _given(data.train), progress)
    if isinstance(data.validation, float):
        names = distinct_names(volume.path for volume in volumes)
        train, held = _split(volumes, [names[volume.path] for volume in volumes], data.validation, recipe.seed)
    else:
        train, held = volumes, _volumes(data, data.validation, progress)
        _distinct([volume.path for volume in train], [volume.path for volume in held])
    held = _once(held, lambda volume: volume.path)
    train, held = (_share(part, data.volumes, recipe.seed) for part in (train, held))
    return TrainingData(
        _fastmri_set(recipe, data, train, training=True),
        _fastmri_set(recipe, data, held, training=False),
        _digest(f"{volume.path.name}:{volume.size}" for volume in (*train, *held)),
        f"{len(train)} volumes to train on, {len(held)} to validate on",
    )


def _fastmri_set(
    recipe: TrainingRecipe, data: FastMRIData, volumes: Sequence[Volume], *, training: bool
) -> FastMRIDataset:
    parameters = dict(data.mask)
    name = parameters.pop("sampler", None)
    if not isinstance(name, str):
        raise UsageError(f"data.mask: expected the name of a sampler under 'sampler', got {name!r}")
    return FastMRIDataset(
        volumes,
        make_sampler(name, parameters),
        training=training,
        maps=data.maps,
        maps_cache=data.maps_cache,
        remove_oversampling=data.remove_oversampling,
        readout_patch=data.readout_patch if training else None,
        augment=data.augment and training,
        slices=data.slices,
        on_damage=data.on_damage,
        seed=recipe.seed,
    )


def _volumes(data: FastMRIData, paths: Iterable[Path], progress: Progress | None) -> list[Volume]:
    """Return the volumes that the filters leave."""
    found: list[Volume] = []
    unusable: dict[str, str] = {}
    for path in paths:
        index = index_folder(path, progress=progress)
        found += index.volumes
        unusable |= index.unusable
    for name, reason in unusable.items():
        if data.on_damage == "stop":
            raise InputError(f"{reason} (data.on_damage: skip goes on without {name})")
        _log.warning("left out: %s", reason)
    low, high = data.columns or (0, 2**31)
    kept = [
        volume
        for volume in found
        if (not data.acquisitions or volume.acquisition in data.acquisitions) and low <= volume.columns <= high
    ]
    trainable = [volume for volume in kept if not volume.undersampled]
    if len(trainable) < len(kept):
        _log.warning("%d undersampled volumes (of a test set) are left out", len(kept) - len(trainable))
    if not trainable:
        held = sorted({volume.acquisition for volume in found})
        raise InputError(
            f"{', '.join(map(str, paths))}: none of {len(found) + len(unusable)} files is left to train on; expected "
            f"fully sampled fastMRI volumes. Acquisitions found: {', '.join(held) or 'none'}; see data.acquisitions "
            "and data.columns of the recipe"
        )
    return trainable


def _simulated(recipe: TrainingRecipe, data: ImageData | PhantomData) -> TrainingData:
    images = _phantoms(data, recipe.seed) if isinstance(data, PhantomData) else _images(data, _given(data.train))
    names = [truth.subject or truth.source.volume for truth in images]
    if isinstance(data.validation, float):
        train, held = _split(images, names, data.validation, recipe.seed)
    elif isinstance(data, ImageData):
        train, held = images, _images(data, data.validation)
    else:
        raise UsageError("data.validation: expected a share of the phantoms, e.g. 0.1, got paths")
    train, held = (_share_of_volumes(part, data.volumes, recipe.seed) for part in (train, held))
    train = _large_enough(train, data.patch, max(data.shrink))
    held = _once(held, lambda truth: truth.source)
    if data.validation_slices is not None:
        places = torch.linspace(0, len(held) - 1, min(data.validation_slices, len(held))).round().long()
        held = [held[place] for place in places.tolist()]
    counts = [len({truth.source.volume for truth in part}) for part in (train, held)]
    return TrainingData(
        _simulated_set(recipe, data, train, training=True),
        _simulated_set(recipe, data, held, training=False),
        _digest(f"{truth.source}:{tuple(truth.image.shape)}" for truth in (*train, *held)),
        f"{len(train)} slices ({counts[0]} files) to train on, {len(held)} ({counts[1]}) to validate on",
    )


def _simulated_set(
    recipe: TrainingRecipe, data: ImageData | PhantomData, images: Sequence[GroundTruth], *, training: bool
) -> SimulatedDataset:
    recipes, patches = _operators(data.operator)
    return SimulatedDataset(
        images,
        recipes,
        patch=data.patch if training else None,
        patches=patches if training else None,
        shrink=data.shrink if training else data.shrink[-1:],
        augment=data.augment and training,
        noise=data.noise,
        counts=data.counts,
        contrast=data.contrast if training else 0.0,
        inversion=data.inversion if training else 0.0,
        truth=data.truth,
        maps=data.maps,
        by_volume=not training,
        phase=data.phase,
        seed=recipe.seed if training else recipe.seed + 1,
    )


def _operators(cards: OperatorCard | Sequence[OperatorCard]) -> tuple[list[Recipe], dict[str, Patch]]:
    """Return the recipes, and the patches of those whose cards ask for others."""
    several = [cards] if isinstance(cards, str | dict) else cards
    recipes: list[Recipe] = []
    patches: dict[str, Patch] = {}
    for number, card in enumerate(several, start=1):
        where = f"data.operator, card {number}"
        if isinstance(card, str):
            recipes.append(load_recipe(card))
            continue
        recipes.append(Recipe.from_dict({key: value for key, value in card.items() if key != "patch"}, where))
        if "patch" in card:
            patches[recipes[-1].name] = _patch_size(card["patch"], where)
    return recipes, patches


def _patch_size(value: object, where: str) -> Patch:
    try:
        size: Patch = TypeAdapter(PatchSize).validate_python(value)
    except ValidationError:
        raise UsageError(f"{where}: patch is a side or [rows, columns] in pixels, got {value!r}") from None
    return size


def _images(data: ImageData, paths: Iterable[Path]) -> list[GroundTruth]:
    return load_ground_truth(
        paths, key=data.key, modality=data.modality, on_damage=data.on_damage, subjects=data.subjects
    )


def _large_enough(images: list[GroundTruth], patch: Patch | None, shrink: int) -> list[GroundTruth]:
    """Leave out images that are smaller than a patch, shrunken as far as they may be."""
    if not isinstance(patch, int):
        return images  # a pair takes what there is
    kept = [truth for truth in images if min(truth.image.shape) // shrink >= patch]
    if len(kept) < len(images):
        small = min(images, key=lambda truth: min(truth.image.shape))
        found = f"the smallest is {small.source} with {tuple(small.image.shape)} pixels"
        if not kept:
            raise InputError(f"no image is as large as a patch of {patch} pixels ({found}); lower data.patch")
        _log.warning("%d slices smaller than a patch of %d are left out: %s", len(images) - len(kept), patch, found)
    return kept


def _phantoms(data: PhantomData, seed: int) -> list[GroundTruth]:
    draw = brain_phantom if data.phantom == "brain" else random_ellipses
    planes = data.intensity * draw(data.count, data.size, torch.Generator().manual_seed(seed))
    return [GroundTruth(plane, Source(f"{data.phantom} phantom {index}")) for index, plane in enumerate(planes)]


def _scans(recipe: TrainingRecipe, data: ScanData, progress: Progress | None) -> TrainingData:
    files = _measured_files(_given(data.train))
    if isinstance(data.validation, float):
        names = distinct_names(files)
        train, held = _split(files, [names[file] for file in files], data.validation, recipe.seed)
    else:
        train, held = files, _measured_files(data.validation)
        _distinct(train, held)
    held = _once(held, lambda file: file)
    train, held = (_share(part, data.volumes, recipe.seed) for part in (train, held))
    options = ReadOptions(mu_water=data.mu_water)
    return TrainingData(
        ScanDataset(train, options, training=True, on_damage=data.on_damage, progress=progress),
        ScanDataset(held, options, training=False, on_damage=data.on_damage, progress=progress),
        _digest(f"{file.name}:{file.stat().st_size}" for file in (*train, *held)),
        f"{len(train)} files to train on, {len(held)} to validate on",
    )


def _measured_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return [file for file in found if not file.name.startswith(".")]


def _given(paths: Sequence[Path] | None) -> Sequence[Path]:
    if not paths:
        raise UsageError("the recipe names no data to train on; give a file or a folder with --data")
    return paths


def _split(items: Sequence[T], names: Sequence[str], share: float, seed: int) -> tuple[list[T], list[T]]:
    """Hold out a share of the volumes, at least one."""
    volumes = sorted(set(names))
    if len(volumes) < 2:
        raise InputError(
            f"the only volume is {volumes[0]}: nothing could be held out to validate on; give another with --validation"
        )
    order = torch.randperm(len(volumes), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(1, round(share * len(volumes))), len(volumes) - 1)
    held = {volumes[place] for place in order[:count]}
    pairs = list(zip(items, names, strict=True))
    return [item for item, name in pairs if name not in held], [item for item, name in pairs if name in held]


def _once(items: Iterable[T], name: Callable[[T], Hashable]) -> list[T]:
    """Leave out repetitions: a folder that is named twice counts twice to train on, but is judged once."""
    return list({name(item): item for item in items}.values())


def _share(items: Sequence[T], share: float, seed: int) -> list[T]:
    count = max(1, round(share * len(items)))
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    return [items[place] for place in sorted(order[:count])]


def _share_of_volumes(images: Sequence[GroundTruth], share: float, seed: int) -> list[GroundTruth]:
    kept = set(_share(sorted({truth.source.volume for truth in images}), share, seed))
    return [truth for truth in images if truth.source.volume in kept]


def _distinct(train: Iterable[Path], held: Iterable[Path]) -> None:
    shared = sorted({path.resolve() for path in train} & {path.resolve() for path in held})
    if shared:
        raise UsageError(
            f"{len(shared)} files are both trained and validated on, the first is {shared[0]}; give --validation others"
        )


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
