"""Acquisition presets: typed YAML cards from which operators are drawn. A card runs no code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medrecon.cards import card_folder, read_card
from medrecon.errors import UsageError
from medrecon.operators.base import DTYPES, LinearOperator
from medrecon.operators.block_cs import BlockCompressedSensing
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.ct.presets import FAN, PARALLEL, check_preset, fan_preset, parallel_preset
from medrecon.operators.inpainting import Inpainting
from medrecon.operators.registry import available_operators, operator_from_config
from medrecon.operators.samplers.base import MaskSampler, cpu_generator, plane
from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.operators.samplers.registry import did_you_mean, make_sampler

_KEYS = ("name", "description", "operator", "parameters", "mask", "coils")
_MASK = {  # needed, or not allowed
    "cartesian-mri": True,
    "inpainting": True,
    "block-compressed-sensing": False,
    "ct-parallel": False,
    "ct-fan": False,
}
_PARAMETERS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "cartesian-mri": {},
    "inpainting": {"channels": int, "dtype": str},
    "block-compressed-sensing": {"ratio": (int, float), "block_size": int, "seed": int, "channels": int, "dtype": str},
    "ct-parallel": PARALLEL,
    "ct-fan": FAN,
}
_PRESETS = {"ct-parallel": parallel_preset, "ct-fan": fan_preset}


@dataclass(frozen=True)
class Recipe:
    """A named distribution of operators, for any image size.

    Parameters
    ----------
    name, description
        For the user.
    operator
        Registered name: ``cartesian-mri``, ``ct-parallel``, ``ct-fan``, ``inpainting``,
        ``block-compressed-sensing`` or a plug-in's.
    parameters
        Of the operator. For a plug-in they are its ``config()``, less ``operator`` and ``image_shape``.
    mask
        Sampler of the mask, where the operator has one; a plug-in gets it as the tensor ``mask``.
    coils
        Distribution of simulated coil arrays; ``cartesian-mri`` only. None is one coil.
    """

    name: str
    description: str
    operator: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mask: MaskSampler | None = None
    coils: CoilArray | None = None

    def __post_init__(self) -> None:
        where = f"recipe {self.name!r}"
        needs_mask = _MASK.get(self.operator)
        if needs_mask is None and self.operator not in (known := available_operators()):
            raise UsageError(f"{where}: no operator is called {self.operator!r}{did_you_mean(self.operator, known)}")
        if needs_mask and self.mask is None:
            raise UsageError(f"{where}: operator {self.operator} needs a mask; add `mask: {{sampler: ...}}`")
        if needs_mask is False and self.mask is not None:
            raise UsageError(f"{where}: operator {self.operator} has no mask; remove the key mask")
        if self.coils is not None and self.operator != "cartesian-mri":
            raise UsageError(f"{where}: coils belong to cartesian-mri, not to {self.operator}; remove the key coils")
        if self.operator in _PARAMETERS:
            _check_parameters(where, self.parameters, _PARAMETERS[self.operator])
        if self.operator in _PRESETS:
            check_preset(where, self.parameters)

    def draw(
        self, image_shape: tuple[int, int], generator: torch.Generator, *, pixel_size: float = 1.0
    ) -> LinearOperator:
        """Draw one operator for images of ``(H, W)``; all randomness is the (CPU) generator's.

        Of ``block-compressed-sensing`` the permutation is random and the matrix is that of the
        recipe's seed, as in the paper. CT geometry is fixed; its lengths need the pixel size in mm.
        """
        shape = plane(image_shape)
        cpu_generator(generator)
        mask = None if self.mask is None else self.mask.draw(shape, generator)
        channels = self.parameters.get("channels", 1)
        if self.operator == "cartesian-mri":
            maps = None if self.coils is None else self.coils.draw(shape, generator)
            return CartesianMRI(mask, maps, image_shape=shape)
        if self.operator == "inpainting" and mask is not None:
            return Inpainting(mask.expand(1, *shape), channels=channels, dtype=self._dtype)
        if self.operator in _PRESETS:
            return _PRESETS[self.operator](self.parameters, shape, pixel_size)
        if self.operator == "block-compressed-sensing":
            return BlockCompressedSensing(
                (channels, *shape),
                self.parameters["ratio"],
                block_size=self.parameters.get("block_size", 32),
                seed=self.parameters.get("seed", 2025),
                permutation_seed=int(torch.randint(2**62, (1,), generator=generator)),
                dtype=self._dtype,
            )
        config = {**self.parameters, "operator": self.operator, "image_shape": list(shape)}
        return operator_from_config(config, {} if mask is None else {"mask": mask})

    @property
    def _dtype(self) -> torch.dtype:
        return DTYPES[self.parameters.get("dtype", "float32")]

    @classmethod
    def from_dict(cls, card: Mapping[str, Any], source: str) -> "Recipe":
        """Build a recipe from the content of a card; unknown keys, wrong types and values are errors."""
        for key in card:
            if key not in _KEYS:
                raise UsageError(f"{source}: unknown key {key!r}{did_you_mean(str(key), dict.fromkeys(_KEYS))}")
        texts = {key: card.get(key) for key in ("name", "description", "operator")}
        for key, value in texts.items():
            if not isinstance(value, str) or not value:
                raise UsageError(f"{source}: expected a text under {key!r}, got {value!r}")
        parts = {key: card.get(key) for key in ("parameters", "mask", "coils")}
        for key, value in parts.items():
            if value is not None and not isinstance(value, dict):
                raise UsageError(f"{source}: expected keys and values under {key!r}, got {value!r}")
        try:
            return cls(
                str(texts["name"]),
                str(texts["description"]),
                str(texts["operator"]),
                dict(parts["parameters"] or {}),
                _mask(parts["mask"]),
                _coils(parts["coils"]),
            )
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error


def available_recipes() -> dict[str, Recipe]:
    """Return all recipes that come with medrecon, by name."""
    recipes = (load_recipe(path) for path in _cards().values())
    return {recipe.name: recipe for recipe in recipes}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe: one of ours by name, anybody's by the path of its YAML file.

    >>> load_recipe("mri-cartesian-4x").operator
    'cartesian-mri'
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml") and path.name == text:
        cards = _cards()
        if text not in cards:
            raise UsageError(
                f"no operator recipe is called {text!r}{did_you_mean(text, cards)} (a file of your own ends in .yaml)"
            )
        path = cards[text]
    return Recipe.from_dict(read_card(path, "an operator recipe", _KEYS), path.name)


def _cards() -> dict[str, Path]:
    return {path.stem: path for path in sorted(card_folder("operators").glob("*.yaml"))}


def _mask(part: dict[str, Any] | None) -> MaskSampler | None:
    if part is None:
        return None
    parameters = dict(part)
    name = parameters.pop("sampler", None)
    if not isinstance(name, str):
        raise UsageError(f"mask: expected the name of a sampler under 'sampler', got {name!r}")
    return make_sampler(name, parameters)


def _coils(part: dict[str, Any] | None) -> CoilArray | None:
    if part is None:
        return None
    known = dict.fromkeys(CoilArray.__dataclass_fields__)
    for key in part:
        if key not in known:
            raise UsageError(f"coils: unknown key {key!r}{did_you_mean(str(key), known)}")
    return CoilArray(**part)


def _check_parameters(where: str, given: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]]) -> None:
    for key, value in given.items():
        if key not in known:
            hint = did_you_mean(str(key), known) if known else "; it has none"
            raise UsageError(f"{where}: unknown parameter {key!r}{hint}")
        if isinstance(value, bool) or not isinstance(value, known[key]):
            raise UsageError(f"{where}: parameter {key} has the value {value!r} of the wrong type")
    if "ratio" in known and not 0 < given.get("ratio", 0) <= 1:
        raise UsageError(f"{where}: parameter ratio must be in (0, 1], got {given.get('ratio')!r}")
    for key in ("block_size", "channels"):
        if given.get(key, 1) < 1:
            raise UsageError(f"{where}: parameter {key} must be at least 1, got {given[key]}")
    if given.get("dtype", "float32") not in DTYPES:
        raise UsageError(f"{where}: parameter dtype must be one of {', '.join(DTYPES)}; got {given['dtype']!r}")
