"""K-space in plain array files: .npy, .npz, .mat and .h5 without a format of their own."""

import json
from typing import TYPE_CHECKING

import numpy as np

from medrecon.errors import InputError
from medrecon.io import budget
from medrecon.io.mat import is_mat5
from medrecon.io.options import ReadOptions
from medrecon.io.readers.assembly import not_complex, scan_from_array
from medrecon.io.readers.axes import ADVICE, parse_axes
from medrecon.io.readers.containers import NPY_MAGIC, ZIP_MAGIC, is_hdf5, load_array, npz_text, open_arrays
from medrecon.io.scan import Scan

if TYPE_CHECKING:
    from medrecon.io.source import Source

__all__ = ["ArrayReader", "load_array"]

_SIDECAR_BYTES = 1 << 20


class ArrayReader:
    """K-space in a bare array, whose axes the user, the file or a sidecar names.

    In this order: ``options.axes``; an entry ``axes`` of a .npz; a sidecar ``name.json`` with
    ``{"axes": "coil,y,x"}``. A 2-D array needs none: it is one coil, (y, x).
    """

    name = "arrays"

    def recognises(self, source: "Source") -> bool:
        """Whether the file holds arrays of any kind that is known; asked after the real formats."""
        head = source.head
        return head.startswith((NPY_MAGIC, ZIP_MAGIC)) or is_mat5(head) or is_hdf5(head)

    def read(self, source: "Source", options: ReadOptions) -> Scan:
        """Read the k-space; what stays mapped is read slice by slice."""
        path = source.path
        with open_arrays(path, hdf5=source.hdf5) as file:
            key = "kspace" if options.key is None and "kspace" in file.entries else options.key
            name, entry = file.choose(key)
            if entry.lazy:
                array = entry.read()
            else:
                limit = budget.resolve(options.max_bytes)
                budget.require(entry.nbytes, limit, path=path, what=f"array {name!r}")
                array = np.asarray(entry.read())
        if array.dtype.kind == "f" and array.shape[-1:] == (2,):
            raise InputError(
                f"{path}: real array of shape {array.shape}; if the last axis holds real and imaginary part, save"
                " array[..., 0] + 1j * array[..., 1] instead: k-space must be complex"
            )
        text = options.axes or (npz_text(path, "axes") if file.kind == "npz" else None) or _sidecar_axes(source)
        if text is not None:
            axes = parse_axes(text)
        elif array.ndim == 2:
            axes = ("y", "x")
        elif array.dtype.kind != "c":
            raise not_complex(array.dtype, path)
        else:
            raise InputError(f"{path}: an array of shape {array.shape} does not say what its axes are; {ADVICE}")
        return scan_from_array(array, axes, path, self.name, options)


def _sidecar_axes(source: "Source") -> str | None:
    sidecar = source.path.with_suffix(".json")
    if not sidecar.is_file() or sidecar.stat().st_size > _SIDECAR_BYTES:
        return None
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{sidecar}: the sidecar is no valid JSON ({type(error).__name__}); name the axes with --axes"
        ) from error
    axes = content.get("axes") if isinstance(content, dict) else None
    if isinstance(axes, list) and all(isinstance(name, str) for name in axes):
        return ",".join(axes)
    return axes if isinstance(axes, str) else None
