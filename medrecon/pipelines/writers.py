"""Images out through MONAI's ``SaveImage``: DICOM with 12 bits or Hounsfield units, HDF5 as fastMRI submits."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from monai.data.image_writer import ImageWriter
from monai.utils import get_equivalent_dtype
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.io import Image, write_image
from medrecon.io.writers.registry import plan_output
from medrecon.pipelines.metadata import Meta, as_array, geometry_of, header_of

Modality = Literal["MR", "CT", "OT"]


class _ImageWriter(ImageWriter):
    """What both writers do: MONAI's array and metadata to an :class:`medrecon.io.Image`."""

    format: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        output_dtype: DTypeLike | None = None,
        scale: int | None = None,
        overwrite: bool = True,
        modality: Modality | None = None,
    ) -> None:
        super().__init__()
        found = "None" if output_dtype is None else np.dtype(get_equivalent_dtype(output_dtype, np.ndarray)).name
        if found not in self.dtypes:
            raise UsageError(
                f"{type(self).__name__}: got output_dtype={found} (MONAI makes that uint8 for .dcm itself unless it is "
                "None); medrecon decides how values are stored: pass output_dtype=None to SaveImage"
            )
        if scale is not None:
            raise UsageError(f"{type(self).__name__}: scale={scale} would change the values; leave it out")
        self.overwrite = overwrite
        self.modality = modality
        self.meta: Meta = {}

    def set_data_array(
        self,
        data_array: NDArray[Any] | Tensor,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,  # noqa: ARG002 (the number of axes is the format's)
    ) -> None:
        """Take an image (1, X, Y[, Z]), or without the channel where ``channel_dim`` is None."""
        array = as_array(data_array)
        if channel_dim is not None:
            channels = array.shape[channel_dim]
            if channels != 1:
                raise UsageError(
                    f"{type(self).__name__}: got an image of {channels} channels, shape {array.shape}; expected one "
                    "channel (1, X, Y, Z), save the channels one by one"
                )
            array = array.squeeze(channel_dim)
        if array.ndim not in (2, 3):
            raise UsageError(f"{type(self).__name__}: expected an image (1, X, Y) or (1, X, Y, Z), got {array.shape}")
        self.data_obj = array.reshape(*array.shape, *[1] * (3 - array.ndim)).transpose(2, 1, 0)

    def set_metadata(
        self,
        meta_dict: Mapping[Hashable, Any] | None = None,
        resample: bool = False,
        mode: str = "nearest",  # noqa: ARG002 (of resampling)
        padding_mode: str = "border",  # noqa: ARG002
        dtype: DTypeLike | None = None,  # noqa: ARG002
    ) -> None:
        """Take affine, modality, header and history."""
        if resample:
            raise UsageError(f"{type(self).__name__}: does not resample; use SpatialResampled or Spacingd before")
        self.meta = meta_dict or {}

    def write(self, filename: Path | str, verbose: bool = False) -> None:
        """Write the file (or, for several slices in DICOM, the folder of its name) and the JSON sidecar."""
        super().write(filename, verbose=verbose)
        plan = plan_output(filename, "image")
        if plan.format != self.format:
            raise UsageError(f"{type(self).__name__} writes {self.format}, not {plan.path.name} ({plan.format})")
        array = self.data_obj if np.iscomplexobj(self.data_obj) else np.asarray(self.data_obj, dtype=np.float32)
        history = json.loads(str(self.meta.get("reconstruction", "{}")))
        image = Image(
            array=array,
            geometry=geometry_of(self.meta, array.shape),
            modality=self.modality or str(self.meta.get("modality", "OT")),
            provenance=history,
            header=header_of(self.meta),
        )
        self._check(image)
        write_image(image, plan, overwrite=self.overwrite)

    def _check(self, image: Image) -> None:
        """Raise UsageError for an image that the format does not take."""


class DicomWriter(_ImageWriter):
    """DICOM through :func:`medrecon.io.write_image`, for ``SaveImaged(keys, output_ext=".dcm", output_dtype=None)``.

    One slice becomes the file ``name.dcm``, more become the folder ``name`` with ``name_0001.dcm`` and so on (what
    MONAI reports as ``saved_to`` stays ``name.dcm``). MR is stored with 12 bits over the range of the stack, CT in
    whole Hounsfield units. The modality is the metadata's ``modality``, "MR" or "CT".

    Parameters
    ----------
    output_dtype
        None. MONAI turns anything else but uint16 into uint8 before this writer sees it, which is refused.
    scale
        None.
    overwrite
        Replace what an earlier run has written.
    modality
        For images whose metadata do not say:
        ``SaveImaged(...).set_options(init_kwargs={"modality": "MR"})``.
    """

    format = "dicom"
    dtypes = ("None",)

    def _check(self, image: Image) -> None:
        if image.modality == "CT" and self.meta.get("unit") == "1/mm":
            raise UsageError(
                "DICOM holds CT images in Hounsfield units, these are in 1/mm; state the attenuation of water with "
                "SinogramReader(mu_water=0.02), or write .nii.gz"
            )
        if image.modality not in ("MR", "CT"):
            raise UsageError(
                f"DICOM is written for the modalities MR and CT, the metadata say {image.modality}; give it with "
                'SaveImaged(...).set_options(init_kwargs={"modality": "MR"}), or write .nii.gz'
            )


class HDF5Writer(_ImageWriter):
    """HDF5 through :func:`medrecon.io.write_image`, for ``SaveImaged(keys, output_ext=".h5")``.

    One file with the dataset ``reconstruction`` (slices, rows, columns) float32, the layout of a fastMRI
    submission; of complex images the magnitude.

    Parameters
    ----------
    output_dtype
        None or float32.
    scale
        None.
    overwrite
        Replace what an earlier run has written.
    modality
        For images whose metadata do not say.
    """

    format = "hdf5"
    dtypes = ("None", "float32")
