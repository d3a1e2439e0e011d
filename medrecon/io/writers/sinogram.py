"""Sinograms out, in the layout of :mod:`medrecon.io.readers.sinogram`."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medrecon import __version__
from medrecon.errors import UsageError
from medrecon.io.affine import write_affine
from medrecon.io.geometry import Geometry
from medrecon.io.scan import SliceStack
from medrecon.io.sinogram.schema import SinogramSchema, flattened
from medrecon.io.writers.atomic import atomic_path
from medrecon.io.writers.stacks import as_stack, checked_reference, fill
from medrecon.operators.ct.base import XRayTransform


def write_sinogram(
    path: Path | str,
    data: Tensor | SliceStack,
    operator: XRayTransform,
    *,
    quantity: Literal["line_integral", "counts"] = "line_integral",
    i0: float | None = None,
    reference: Tensor | SliceStack | None = None,
    geometry: Geometry | None = None,
    mu_water: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write sinograms with their geometry as HDF5. The file appears complete or not at all.

    Parameters
    ----------
    path
        File to write.
    data
        (slices, 1, views, bins).
    operator
        One operator for all slices.
    quantity, i0
        What the values are; counts need the intensity without an object.
    reference
        Ground truth (slices, rows, columns), in the unit that the reconstruction will have.
    geometry
        Of the reconstructed image.
    mu_water
        1/mm, where the reconstruction is to be in Hounsfield units.
    overwrite
        Replace an existing file.
    """
    import h5py

    stack = as_stack(data)
    if stack.shape != operator.data_shape or operator.data_shape[0] != 1 or not len(stack):
        raise UsageError(
            f"write_sinogram: the data have shape {(len(stack), *stack.shape)}, "
            f"expected (slices, 1, {operator.data_shape[1]}, {operator.data_shape[2]})"
        )
    if operator.batch_size != 1:
        raise UsageError(f"write_sinogram: the operator serves a batch of {operator.batch_size}; expected one for all")
    if quantity == "counts" and i0 is None:
        raise UsageError("write_sinogram: counts need i0, the photons of a ray without an object")
    images = checked_reference(reference, len(stack), "write_sinogram")
    schema = SinogramSchema(operator, quantity=quantity, i0=i0, mu_water=mu_water)
    with atomic_path(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["medrecon_version"] = np.bytes_(__version__.encode())
        fill(file, "sinogram", stack, torch.float32, drop_axis=True)
        for key, value in flattened(schema.to_mapping()).items():
            text = ",".join(value) if key == "data.axes" else value
            file["sinogram"].attrs[key] = np.bytes_(text.encode()) if isinstance(text, str) else text
        file["angles"] = schema.degrees.cpu().numpy()
        if images is not None:
            fill(file, "reference", images, torch.float32)
        if geometry is not None:
            write_affine(file, geometry)
