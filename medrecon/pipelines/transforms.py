"""Reconstruction as a MONAI transform."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform
from monai.utils import TransformBackends
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.io.writers.sidecar import json_ready
from medrecon.operators.base import LinearOperator
from medrecon.operators.coils import MapMethod
from medrecon.pipelines.measured import measured_scan
from medrecon.pipelines.metadata import without_measurements
from medrecon.reconstructors.base import Setting
from medrecon.reconstructors.plan import CHECKPOINT, ReconstructionPlan, prepare_method
from medrecon.reconstructors.volume import reconstruct_scan

OPERATOR = "_operator"


class Reconstruct(Transform):
    """Measurements (C, slices, …) to an image (1, X, Y, Z) float32.

    X are columns, Y rows and Z slices, and the affine is that of the reconstruction grid: what ``SaveImage``
    writes is what ``medrecon reconstruct`` writes. MRI gives the magnitude, CT Hounsfield units where the metadata
    state the attenuation of water, else 1/mm.

    Not lazy: k-space has no pending spatial operations that could be put off, and an array with some is refused.
    Not invertible: ``Invertd`` ends here. Deterministic, and no global random state is touched.

    Parameters
    ----------
    method
        See :class:`~medrecon.reconstructors.plan.ReconstructionPlan`: "auto", "rss" or a method's name.
    parameters
        Of the method.
    checkpoint
        Folder of a trained model, or the name of one that comes with medrecon; "auto" then is the method of that model.
    maps
        How coil sensitivities are estimated: "espirit", "walsh" or "low-resolution"; by default as a checkpoint
        was trained, else "espirit".
    device
        Where to compute; the image comes back to where the measurements are.
    seed
        For methods that draw random numbers.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH]

    def __init__(
        self,
        method: str = "auto",
        parameters: Mapping[str, Setting] | None = None,
        checkpoint: Path | str | None = None,
        maps: MapMethod | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if maps is not None and maps not in get_args(MapMethod):
            raise UsageError(f"Reconstruct: maps must be one of {', '.join(get_args(MapMethod))}, got {maps!r}")
        given = dict(parameters or {})
        if checkpoint is not None:
            given[CHECKPOINT] = str(checkpoint)
        self.plan = ReconstructionPlan(method, given, maps, device=torch.device(device), seed=seed)
        self._reconstructor = prepare_method(self.plan)

    def __call__(self, img: Tensor, operator: LinearOperator | None = None) -> MetaTensor:
        """Reconstruct one item.

        Parameters
        ----------
        img
            Of :class:`~medrecon.pipelines.KSpaceReader` (coils, slices, H, W),
            :class:`~medrecon.pipelines.SinogramReader` (1, slices, views, bins) or
            :class:`~medrecon.pipelines.SimulateMeasurementsd`; a plain tensor is k-space of unknown geometry.
        operator
            That made the measurements, one for all slices; None takes what the metadata say.

        Returns
        -------
        MetaTensor
            With the metadata of the input, less what describes measurements, and ``reconstruction``: the history
            as JSON (method, parameters, residual, …), which DicomWriter and HDF5Writer pass on.
        """
        refuse_pending(img, "Reconstruct")
        meta = dict(img.meta) if isinstance(img, MetaTensor) else {}
        values = img.as_tensor() if isinstance(img, MetaTensor) else torch.as_tensor(img)
        with torch.no_grad():
            scan = measured_scan(values.detach(), meta, operator)
            image = reconstruct_scan(scan, self.plan, reconstructor=self._reconstructor)
        voxels = torch.from_numpy(image.array).permute(2, 1, 0)[None].contiguous()
        affine = torch.from_numpy(image.geometry.affine.copy())
        history = {"input": {"file": scan.source.name, "format": scan.format}, **image.provenance}
        if "slices" in meta:
            history["input"]["slices"] = [int(number) for number in meta["slices"]]
        about: dict[Hashable, Any] = {
            **without_measurements(meta),
            "affine": affine,
            "original_affine": image.geometry.affine.copy(),
            "space": "RAS",
            "spatial_shape": np.array(voxels.shape[1:]),
            "original_channel_dim": 0,
            "modality": image.modality,
            "oriented": bool(image.geometry.oriented),
            "reconstruction": json.dumps(json_ready(history)),
        }
        if image.modality == "CT":
            about["unit"] = "1/mm" if scan.mu_water is None else "HU"
        return MetaTensor(voxels.to(values.device), meta=about)


class Reconstructd(MapTransform):
    """Dictionary version of :class:`Reconstruct`: the measurements under each key become an image.

    An operator under ``f"{key}_operator"``, as :class:`~medrecon.pipelines.SimulateMeasurementsd` leaves it there,
    is used and stays; ``DeleteItemsd`` removes it for loaders that cannot collate it.

    Parameters
    ----------
    keys
        Of the measurements.
    method, parameters, checkpoint, maps, device, seed
        As in :class:`Reconstruct`.
    allow_missing_keys
        Skip keys that an item does not have.
    """

    backend: ClassVar[list[TransformBackends]] = Reconstruct.backend

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "auto",
        parameters: Mapping[str, Setting] | None = None,
        checkpoint: Path | str | None = None,
        maps: MapMethod | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reconstruct = Reconstruct(method, parameters, checkpoint, maps, device, seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with images in place of measurements."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.reconstruct(item[key], item.get(f"{key}{OPERATOR}"))
        return item


def refuse_pending(array: Any, who: str) -> None:  # noqa: ANN401 (whatever stands in the item)
    """Raise UsageError for an array on which lazy transforms have not been carried out."""
    if isinstance(array, MetaTensor) and array.has_pending_operations:
        raise UsageError(
            f"{who}: {len(array.pending_operations)} lazy operations are pending on this array; carry them out first "
            "(ApplyPendingd, or monai.transforms.lazy.functional.apply_pending), Compose does so by itself"
        )
