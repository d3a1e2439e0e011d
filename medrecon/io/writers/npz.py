"""NumPy archive out."""

import json
from pathlib import Path

import numpy as np

from medrecon.io.image import Image
from medrecon.io.writers.sidecar import json_ready


def write_npz(image: Image, path: Path) -> None:
    """Write ``array`` (float32 or complex64), ``affine``, ``oriented``, ``modality``, ``header`` and ``provenance``.

    The last two are JSON text, so the archive opens with ``allow_pickle=False``.
    """
    dtype = np.complex64 if np.iscomplexobj(image.array) else np.float32
    np.savez_compressed(
        path,
        array=np.asarray(image.array, dtype=dtype),
        affine=image.geometry.affine,
        oriented=np.bool_(image.geometry.oriented),
        modality=np.str_(image.modality),
        header=np.str_(json.dumps(json_ready(image.header), allow_nan=False)),
        provenance=np.str_(json.dumps(json_ready(image.provenance), allow_nan=False)),
    )
