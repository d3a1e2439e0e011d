"""Measurements of the images in a MONAI pipeline."""

import math
import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils import TransformBackends
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.recipes import Recipe, load_recipe
from medrecon.pipelines.measured import modality_of
from medrecon.pipelines.metadata import without_measurements
from medrecon.pipelines.transforms import OPERATOR, refuse_pending
from medrecon.simulation import simulate, smooth_phase

_HOUNSFIELD = -100.0
_SQUARE = 1e-3


class SimulateMeasurementsd(Randomizable, MapTransform):
    """Measure images (1, X, Y) or (1, X, Y, Z): y = A x + n, the operator A drawn from a recipe.

    As everywhere in MONAI the first spatial axis is X: columns of the slice, along which MRI undersamples, then Y,
    rows, then Z, slices. One operator is drawn for all slices. The item gains, for each key,

    - ``f"{key}_{postfix}"``, the measurements (C, slices, …) as a MetaTensor with the image's affine, complex64 for
      MRI, and
    - ``f"{key}_{postfix}_operator"``, the :class:`~medrecon.operators.LinearOperator` that made them,

    which :class:`~medrecon.pipelines.Reconstructd` with ``keys=f"{key}_{postfix}"`` takes as they are. Loaders need
    :func:`~medrecon.pipelines.collate_with_operators`, or ``DeleteItemsd`` after the reconstruction.

    Images of CT are attenuation in 1/mm (``medrecon.operators.ct.hounsfield.from_hounsfield`` makes it of CT
    numbers). Not lazy: pending operations are refused, within ``Compose`` MONAI carries them out before. Not
    invertible.

    Parameters
    ----------
    keys
        Of the images.
    recipe
        Name or YAML file, see :func:`medrecon.operators.recipes.load_recipe`, or a recipe.
    noise
        Relative standard deviation, see :func:`medrecon.simulation.simulate`.
    seed
        None draws anew at every call, from ``set_random_state`` (``Compose`` and ``set_determinism`` set it for all
        their transforms). A number fixes what is drawn: it then depends on the number, the key and the name of the
        file only, so that every file keeps its mask in each epoch and each worker.
    pixel_size
        In mm, None takes it from the affine; lengths of CT geometries need it.
    phase
        Give real images a smooth random phase where the operator wants complex ones (MRI).
    postfix
        Of the new keys.
    allow_missing_keys
        Skip keys that an item does not have.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        recipe: str | Path | Recipe,
        noise: float = 0.0,
        seed: int | None = None,
        pixel_size: float | None = None,
        phase: bool = True,
        postfix: str = "measurements",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not 0 <= noise < math.inf:
            raise UsageError(f"SimulateMeasurementsd: noise is a relative standard deviation >= 0, got {noise}")
        if pixel_size is not None and not 0 < pixel_size < math.inf:
            raise UsageError(f"SimulateMeasurementsd: pixel_size is a length in mm > 0, got {pixel_size}")
        if seed is not None and seed < 0:
            raise UsageError(f"SimulateMeasurementsd: seed is a number >= 0, got {seed}")
        if not postfix:
            raise UsageError("SimulateMeasurementsd: an empty postfix would replace the images; name one")
        self.recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        self.noise = noise
        self.seed = seed
        self.pixel_size = pixel_size
        self.phase = phase
        self.postfix = postfix
        self._drawn = 0

    def randomize(self, data: Any = None) -> None:  # noqa: ANN401, ARG002 (MONAI's signature)
        """Draw the number that seeds one measurement."""
        self._drawn = int(self.R.randint(2**32, dtype=np.uint64))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with measurements and operators added."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            refuse_pending(image, "SimulateMeasurementsd")
            meta = dict(image.meta) if isinstance(image, MetaTensor) else {}
            if self.seed is None:
                self.randomize()
            number = self._drawn if self.seed is None else _fixed(self.seed, f"{key}/{_file(meta)}")
            generator = torch.Generator().manual_seed(number)
            name = f"{key}_{self.postfix}"
            item[name], item[f"{name}{OPERATOR}"] = self._measure(image, meta, generator)
        return item

    def _measure(self, image: Any, meta: dict[Hashable, Any], generator: torch.Generator) -> tuple[Any, Any]:  # noqa: ANN401
        affine = _affine(image)
        slices = _slices(image)
        height, width = slices.shape[-2:]
        size = self.pixel_size
        if size is None:
            size = float(np.linalg.norm(affine[:3, 0]))
            other = float(np.linalg.norm(affine[:3, 1]))
            if self.recipe.operator.startswith("ct-") and abs(size - other) > _SQUARE * size:
                raise UsageError(
                    f"SimulateMeasurementsd: CT needs square pixels, these are {size:g} x {other:g} mm; resample with "
                    "Spacingd, or give pixel_size"
                )
        complex_wanted = self.recipe.operator == "cartesian-mri"
        if complex_wanted and self.phase and not slices.is_complex():
            slices = torch.polar(slices.float(), smooth_phase((height, width), generator).expand(slices.shape))
        operator = self.recipe.draw((height, width), generator, pixel_size=size)
        if isinstance(operator, XRayTransform) and not slices.is_complex() and float(slices.min()) < _HOUNSFIELD:
            raise UsageError(
                f"SimulateMeasurementsd: an image with values down to {float(slices.min()):g} looks like Hounsfield "
                "units; X-rays measure attenuation in 1/mm, see medrecon.operators.ct.hounsfield.from_hounsfield"
            )
        measured = simulate(slices, operator, noise=self.noise, generator=generator).measurements
        values = measured.movedim(0, 1).contiguous()
        about = {
            **without_measurements(meta),
            "affine": torch.from_numpy(affine),
            "original_affine": affine.copy(),
            "space": "RAS",
            "spatial_shape": np.array(values.shape[1:]),
            "original_channel_dim": 0,
            "modality": str(meta.get("modality", modality_of(operator))),
            "oriented": bool(meta.get("oriented", not np.allclose(affine, np.eye(4)))),
        }
        for name in ("mu_water", "unit", "reconstruction"):
            about.pop(name, None)
        return MetaTensor(values, meta=about), operator


def _slices(image: Any) -> Tensor:  # noqa: ANN401 (checked here)
    """Return (1, X, Y[, Z]) as (slices, rows, columns) on the CPU."""
    values = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    if values.ndim not in (3, 4) or values.shape[0] != 1 or not (values.is_floating_point() or values.is_complex()):
        raise UsageError(
            f"SimulateMeasurementsd: expected an image (1, X, Y) or (1, X, Y, Z) of floating-point numbers, got shape "
            f"{tuple(values.shape)} and {values.dtype}; see EnsureChannelFirstd and EnsureTyped"
        )
    volume = values[0] if values.ndim == 4 else values[0, ..., None]
    return volume.detach().cpu().permute(2, 1, 0).contiguous()


def _affine(image: Any) -> NDArray[np.float64]:  # noqa: ANN401
    if not isinstance(image, MetaTensor):
        return np.eye(4)
    return np.array(to_affine_nd(3, image.affine.detach().cpu().numpy()), dtype=np.float64)


def _file(meta: Mapping[Hashable, Any]) -> str:
    return Path(str(meta.get("filename_or_obj", ""))).name


def _fixed(seed: int, name: str) -> int:
    state = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
    return int(state[0] % 2**63)
