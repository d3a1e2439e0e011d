"""The JSON file beside every written image: how it came about, where it lies, what its values are."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import medrecon
from medrecon.io.image import Image
from medrecon.io.writers.window import robust_window

NOTICE = "not for diagnostic use"
# Whatever a reader let through: fields that may tell who was scanned never reach a sidecar.
_PERSONAL = re.compile(
    r"(patient|subject|referring|physician|operators?_?name|performing|accession|institution|hospital|birth)[ _-]?\w*"
    r"|(study|series|sop|frame_of_reference)[ _-]?\w*uid|study[ _-]?(id|date|time)|device[ _-]?serial\w*",
    re.IGNORECASE,
)
_TECHNICAL = frozenset({"patient_position", "patientposition"})


def json_ready(value: object) -> Any:  # noqa: ANN401  (a JSON value has no narrower type)
    """Turn a value into what JSON can hold; fields that may identify a person are left out.

    Numbers that are not finite become null; arrays become lists, paths lose their folders, and other
    objects become their type's name.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            number = float(value)
            return number if math.isfinite(number) else None
        case np.bool_() | np.integer():
            return value.item()
        case Path():
            return value.name
        case Mapping():
            return {str(key): json_ready(item) for key, item in value.items() if not is_personal(str(key))}
        case np.ndarray():
            return json_ready(value.tolist())
        case list() | tuple() | set() | frozenset():
            return [json_ready(item) for item in value]
        case _:
            return type(value).__name__


def is_personal(field: str) -> bool:
    """Tell whether a field of this name may say who was scanned, when or by whom."""
    return field.lower() not in _TECHNICAL and _PERSONAL.fullmatch(field) is not None


def sidecar_record(image: Image, files: list[str]) -> dict[str, Any]:
    """Describe an image and the ``files`` it is written to (names without folders)."""
    values = image.magnitude
    black, white = robust_window(values)
    return {
        "medrecon": medrecon.__version__,
        "notice": NOTICE,
        "files": files,
        "modality": image.modality,
        "geometry": {
            "shape": list(image.array.shape),
            "axes": ["slice", "row", "column"],
            "spacing_mm": dict(zip(("column", "row", "slice"), image.geometry.spacing, strict=True)),
            "affine_ras": image.geometry.affine.tolist(),
            "oriented": image.geometry.oriented,
        },
        "intensity": {
            "kind": "magnitude of complex" if np.iscomplexobj(image.array) else "real",
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean(dtype=np.float64)),
            "window": [black, white],
        },
        "acquisition": json_ready(image.header),
        "provenance": json_ready(image.provenance),
    }


def write_sidecar(image: Image, path: Path, files: list[str]) -> None:
    """Write the record of an image to ``path``, a temporary file of :func:`~medrecon.io.writers.atomic_path`."""
    record = sidecar_record(image, files)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
