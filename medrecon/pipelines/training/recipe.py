"""The training recipe: a typed YAML card. It runs no code, and a key that is not known is an error."""

import copy
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from medrecon.cards import read_card
from medrecon.errors import UsageError
from medrecon.pipelines.training.cards import recipe_path

Share = Annotated[float, Field(gt=0, lt=1)]


def _several(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_several), Field(min_length=1)]
Range = tuple[float, float]
OperatorCard = str | dict[str, Any]
PatchSize = Annotated[int, Field(gt=0)] | tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class _Data(_Part):
    validation: Share | Paths = 0.1
    """Files or folders to validate on, or the share of the volumes that is held out."""
    volumes: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the volumes that is used: small for a trial."""
    on_damage: Literal["stop", "skip"] = "stop"
    """What to do about a file that cannot be read: stop, or go on without it and count."""


class FastMRIData(_Data):
    """Measured k-space of fastMRI volumes, undersampled anew in every epoch."""

    kind: Literal["fastmri"] = "fastmri"
    train: Paths | None = None
    """Folders such as multicoil_train, or files."""
    mask: dict[str, Any]
    """Sampler of the lines and its parameters, as in the recipes of operators."""
    maps: Literal["low-resolution", "walsh", "espirit"] = "low-resolution"
    """How coil sensitivities are estimated."""
    maps_cache: Path | None = None
    """Folder in which they are kept; for espirit."""
    remove_oversampling: bool = True
    """Crop the read-out to the field of view."""
    readout_patch: Annotated[int, Field(gt=0)] | None = None
    """Rows of random windows to train on."""
    augment: bool = True
    """Mirror images and turn their phase."""
    acquisitions: tuple[str, ...] = ()
    """Types of scan to keep, e.g. CORPD_FBK; all by default."""
    columns: tuple[int, int] | None = None
    """Smallest and largest width of the k-space to keep."""
    slices: Range = (0.0, 1.0)
    """Part of each volume, as fractions: (0.2, 0.8) leaves out what lies outside the object."""


class _Simulated(_Data):
    validation_slices: Annotated[int, Field(gt=0)] | None = None
    """Validate on at most so many slices, spread over the volumes; all by default."""
    operator: OperatorCard | Annotated[tuple[OperatorCard, ...], Field(min_length=1)]
    """Recipe of the acquisition: a name that 'medrecon operators' lists, a YAML file, or a card; of several each
    slice draws one."""
    patch: PatchSize | None = None
    """Side of random patches to train on, or rows and columns at most; validation takes whole slices. The card of an
    operator may have a patch of its own."""
    shrink: tuple[Annotated[int, Field(gt=0)], ...] = (1,)
    """Factors of which each slice draws one to be shrunken by, before the patch is cut; validation takes the last."""
    augment: bool = True
    """Turn and mirror."""
    noise: Range = (0.0, 0.0)
    """Range of the relative noise."""
    counts: Range | None = None
    """Range of the photons a ray, for CT."""
    contrast: Annotated[float, Field(ge=0)] = 0.0
    """Largest change of contrast in training: intensities to the power of exp(± this)."""
    inversion: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training slices whose contrast is turned round, as T2 weighting does with T1."""
    truth: Literal["clean", "acquired"] = "clean"
    """The image itself, or what a fully sampled MRI acquisition with its noise would show."""
    maps: Literal["espirit", "walsh", "low-resolution"] | None = None
    """How coil sensitivities are estimated from simulated measurements, with an acquired truth; by default they are
    known."""
    phase: bool = True
    """Give real images a smooth random phase where the operator wants complex ones."""


class ImageData(_Simulated):
    """Measurements simulated of images: NIfTI, DICOM, PNG, NPZ and other files."""

    kind: Literal["images"] = "images"
    train: Paths | None = None
    """Files, or folders that are searched."""
    key: str | None = None
    """Variable in array files."""
    subjects: str | None = None
    """Variable in array files that names who is shown on each slice: nobody is on both sides."""
    modality: Literal["MR", "CT", "OT"] | None = None
    """Of files that do not say; CT numbers become attenuation."""


class PhantomData(_Simulated):
    """Measurements simulated of numerical phantoms; no file is needed."""

    kind: Literal["phantoms"] = "phantoms"
    phantom: Literal["brain", "ellipses"] = "brain"
    """What is drawn."""
    count: Annotated[int, Field(gt=1)] = 64
    """How many."""
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = (128, 128)
    """Rows and columns."""
    intensity: Annotated[float, Field(gt=0)] = 1.0
    """Of the brightest pixel; 0.02 for CT in 1/mm."""


class ScanData(_Data):
    """Measured files with reference images, such as sinograms."""

    kind: Literal["scans"] = "scans"
    train: Paths | None = None
    """Files, or folders of them."""
    mu_water: float | None = None
    """Attenuation of water in 1/mm, where files need it."""


class ModelPart(_Part):
    """What is trained."""

    method: str = "idm"
    """idm, unet, varnet, or one of a package that is installed."""
    preset: str | None = "small"
    """Its size."""
    parameters: dict[str, Any] = {}
    """Fields of its configuration that differ from the preset."""
    memory: Literal["none", "checkpoint", "min", "reversible", "auto"] | int | None = None
    """What a training step keeps, where the method knows that; an int is a budget in bytes."""
    start: Path | None = None
    """Folder of a trained model to go on from; ``method``, ``preset`` and ``parameters`` are its own then."""
    unshare: bool = False
    """Give every step of that model weights of its own, copies of the shared ones to begin with (idm)."""


class TrainingPart(_Part):
    """How it is trained."""

    epochs: Annotated[int, Field(gt=0)] = 50
    """Passes over the data."""
    batch_size: Annotated[int, Field(gt=0)] = 1
    """Slices a process and step."""
    accumulate: Annotated[int, Field(gt=0)] = 1
    """Batches whose gradients are added before the optimizer steps."""
    loss: Literal["l1", "ssim", "l1+ssim", "relative-l1"] = "l1"
    """Of images: L1 in real channels, SSIM of magnitudes, both, or L1 relative to that of the initial image."""
    optimizer: Literal["adamw", "adam", "rmsprop"] = "adamw"
    """Its name."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """After the warm-up."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """How far Adam's means of gradients and of their squares remember. Those of deep unrolled networks grow a
    hundredfold while they learn: a longer memory (0.999) divides by what they were, and the weights are thrown off."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of the optimizer."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """cosine falls to 2 %, step to a tenth after two thirds."""
    warm_up: Annotated[int, Field(ge=0)] = 100
    """Steps in which the rate rises."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] | None = 0.999
    """Decay of the averaged weights, which are those that are validated and saved."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is autocast; operators compute in float32 all the same."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that load data."""
    save_every: Annotated[int, Field(gt=0)] = 500
    """Steps between checkpoints; there is one after every epoch, too."""
    log_every: Annotated[int, Field(gt=0)] = 10
    """Steps between lines of the log."""


class ValidationPart(_Part):
    """How it is judged."""

    every: Annotated[int, Field(gt=0)] = 1
    """Epochs between validations."""
    metric: Literal["ssim", "psnr", "nmse"] = "ssim"
    """Whose best value decides which weights are kept."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """Validations without improvement after which training stops."""
    batch_size: Annotated[int, Field(gt=0)] = 1
    """Slices at a time."""
    pictures: Annotated[int, Field(ge=0)] = 4
    """Slices that are shown in TensorBoard."""


class TrainingRecipe(_Part):
    """All that decides a training run, but for the data themselves."""

    name: str = "training"
    """For people."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of everything that is drawn."""
    data: Annotated[FastMRIData | ImageData | PhantomData | ScanData, Field(discriminator="kind")]
    """What is learned from."""
    model: ModelPart = ModelPart()
    training: TrainingPart = TrainingPart()
    validation: ValidationPart = ValidationPart()

    @classmethod
    def from_dict(cls, card: Mapping[str, Any], source: str) -> "TrainingRecipe":
        """Return the recipe of a card; unknown keys, wrong types and values are errors that name the key."""
        try:
            return cls.model_validate(card)
        except ValidationError as error:
            raise UsageError(f"{source}: {'; '.join(_wording(part) for part in error.errors())}") from error

    def to_yaml(self) -> str:
        """Return the recipe with all its defaults, as a card that :func:`load_training_recipe` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_training_recipe(name_or_path: str | Path, changes: Sequence[tuple[str, Any]] = ()) -> TrainingRecipe:
    """Load a recipe: one of ours by the name of its folder in ``pipelines/``, anybody's by the path of its YAML file.

    Parameters
    ----------
    name_or_path
        For example "mri-idm".
    changes
        Pairs of a dotted key and a value that replace or add to what the card says: ("training.epochs", 3).

    Examples
    --------
    >>> load_training_recipe("mri-idm", [("training.epochs", 3)]).training.epochs
    3
    """
    path = recipe_path(name_or_path)
    return TrainingRecipe.from_dict(
        changed(read_card(path, "a training recipe", TrainingRecipe.model_fields), changes), path.name
    )


def changed(card: Mapping[str, Any], changes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a copy of a card with other values under some dotted keys.

    >>> changed({"training": {"epochs": 5}}, [("training.epochs", 3), ("seed", 1)])
    {'training': {'epochs': 3}, 'seed': 1}
    """
    new = copy.deepcopy(dict(card))
    for key, value in changes:
        *parents, last = key.split(".")
        part = new
        for parent in parents:
            part = part.setdefault(parent, {})
            if not isinstance(part, dict):
                raise UsageError(f"{key}: {parent} is a value, not a group of keys")
        part[last] = value
    return new


def _wording(part: Mapping[str, Any]) -> str:
    """Say what pydantic found, in our words: the key, what stands there, what is expected."""
    where = [str(step) for step in part["loc"] if not str(step).startswith(("function-", "tuple[", "lax-or-strict"))]
    kinds = ("fastmri", "images", "phantoms", "scans")
    key = ".".join(step for step in where if step not in (*kinds, "constrained-float"))
    if part["type"] == "extra_forbidden":
        known = _keys(where)
        close = get_close_matches(where[-1], known, n=1)
        return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}")
    if part["type"] == "missing":
        return f"{key!r} is missing"
    if part["type"].startswith("union_tag"):
        return f"data.kind: expected one of {', '.join(kinds)}, got {part['ctx'].get('tag', 'nothing')!r}"
    return f"{key}: {part['msg'][0].lower()}{part['msg'][1:]}, got {part['input']!r}"


def _keys(where: Sequence[str]) -> list[str]:
    """Return the keys that are known where an unknown one was found."""
    parts: dict[str, type[BaseModel]] = {
        "model": ModelPart,
        "training": TrainingPart,
        "validation": ValidationPart,
        "fastmri": FastMRIData,
        "images": ImageData,
        "phantoms": PhantomData,
        "scans": ScanData,
    }
    model: type[BaseModel] = TrainingRecipe
    for step in where[:-1]:
        model = parts.get(step, model)
    return list(model.model_fields)
