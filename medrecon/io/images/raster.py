"""PNG, JPEG, TIFF and BMP in."""

import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import InputError
from medrecon.io.budget import require, resolve
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_GREY = frozenset({"1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_FLAWS = (
    OSError, EOFError, SyntaxError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def is_raster(head: bytes) -> bool:
    """Tell by the first bytes."""
    return head.startswith(_MAGIC)


def load_raster(path: Path, *, max_bytes: int | None = None) -> Image:
    """Read a picture: values as stored, colour as luma, the pages of a TIFF as slices; spacing is 1 mm."""
    from PIL import Image as PillowImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked against our own budget
            with PillowImage.open(path, formats=_FORMATS) as picture:
                pages = int(getattr(picture, "n_frames", 1)) if picture.format == "TIFF" else 1
                # a decoded colour page and the float copies of it, and float32 slices
                need = math.prod(picture.size) * (24 + 4 * pages)
                require(need, resolve(max_bytes), path=path, what="the picture")
                array = np.stack([_page(path, picture, page, pages) for page in range(pages)])
    except InputError:
        raise
    except PillowImage.DecompressionBombError as error:
        raise InputError(f"{path}: declares more pixels than any real picture has; not read") from error
    except _FLAWS as error:
        raise InputError(
            f"{path}: a damaged or truncated picture ({type(error).__name__}); get a fresh copy"
        ) from error
    slices, rows, columns = array.shape
    geometry = Geometry.from_spacing((1.0, 1.0, 1.0), (slices, rows, columns))
    return Image(array, geometry, "OT", {"source_format": "picture"})


def _page(path: Path, picture: "Picture", page: int, pages: int) -> NDArray[np.float32]:
    from PIL import ImageOps

    size = picture.size
    if pages > 1:
        picture.seek(page)
        if picture.size != size:
            raise InputError(
                f"{path}: page {page + 1} is {picture.size}, others are {size}; expected pages of one size"
            )
    upright: Any = ImageOps.exif_transpose(picture)
    if upright.mode in _GREY:
        return np.asarray(upright, dtype=np.float32)
    colour = upright.convert("L") if upright.mode == "LA" else upright.convert("RGB")
    values = np.asarray(colour, dtype=np.float32)
    return values if values.ndim == 2 else np.asarray(values @ _LUMA, dtype=np.float32)
