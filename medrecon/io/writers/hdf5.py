"""HDF5 in the layout of a fastMRI submission."""

from pathlib import Path

import numpy as np

from medrecon.io.image import Image


def write_hdf5(image: Image, path: Path) -> None:
    """Write one dataset ``reconstruction`` (slices, rows, columns) float32: magnitude, or the real values.

    Its attributes hold the geometry. They are numbers or fixed-length strings: variable-length ones
    would go through HDF5's global heap, where one damaged byte can hang a reader for ever.
    """
    import h5py

    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("reconstruction", data=image.magnitude)
        dataset.attrs["affine"] = image.geometry.affine
        dataset.attrs["oriented"] = np.uint8(image.geometry.oriented)
        dataset.attrs["modality"] = np.bytes_(image.modality.encode("ascii", "replace"))
