"""Contact sheets: slices as one PNG, for a first look."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.errors import UsageError
from medrecon.io.image import Image
from medrecon.io.writers.atomic import atomic_path
from medrecon.io.writers.window import robust_window

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SHEET = 4096  # largest width and height of a sheet in pixels
_TILE = 160  # smaller slices are enlarged towards this size, by a whole factor
_GAP = 4
_HEAD = 22  # height of the line of labels
_INK = 255


@dataclass(frozen=True)
class _Column:
    label: str
    slices: NDArray[Any]
    window: tuple[float, float]


def write_png(image: Image, path: Path) -> None:
    """Write all slices of one image as a grid, in reading order, with their numbers.

    ``path`` is a temporary file of :func:`~medrecon.io.writers.atomic_path`.
    """
    values = image.magnitude
    tiles = [(f"{index + 1}", values[index]) for index in range(len(values))]
    width, height = _tile_size(image)
    columns = max(1, min(len(tiles), math.ceil(math.sqrt(len(tiles) * height / width))))
    rows = math.ceil(len(tiles) / columns)
    window = robust_window(values)
    sheet = _Sheet(columns, rows, (width, height), head=0)
    for index, (label, tile) in enumerate(tiles):
        sheet.paste(index % columns, index // columns, tile, window, label if len(tiles) > 1 else "")
    sheet.picture.save(path, format="PNG")


def contact_sheet(
    images: Mapping[str, Image],
    path: Path | str,
    *,
    slices: Sequence[int] | None = None,
    difference: tuple[str, str] | None = None,
    gain: float = 5.0,
    overwrite: bool = False,
) -> None:
    """Write several images of the same grid side by side, one labelled column each, one row a slice.

    Parameters
    ----------
    images
        Label to image, e.g. ``{"zero-filled": …, "reconstruction": …, "reference": …}``. One window,
        common to all of them, so that a difference in brightness is a difference in the data.
    path
        The PNG to write.
    slices
        Indices from 0; None takes at most six, evenly spread.
    difference
        Two labels: a last column shows the absolute difference of these images, ``gain`` times brighter.
    gain
        Factor of the difference's brightness; named in its label.
    overwrite
        Replace an existing file.
    """
    grids = {label: image.magnitude for label, image in images.items()}
    if not grids:
        raise UsageError("contact_sheet: expected at least one image, got none")
    shapes = {label: grid.shape for label, grid in grids.items()}
    if len(set(shapes.values())) > 1:
        raise UsageError(f"contact_sheet: the images must lie on one grid, got {shapes}; crop or resample them first")
    first = next(iter(images.values()))
    count = first.array.shape[0]
    if slices is None:
        slices = sorted({round(index) for index in np.linspace(0, count - 1, min(count, 6))}) if count > 1 else [0]
    if not slices or not all(0 <= index < count for index in slices):
        raise UsageError(f"contact_sheet: slices {list(slices)} of a stack of {count}; expected 0 to {count - 1}")
    window = robust_window(np.stack([grid[list(slices)] for grid in grids.values()]))
    columns = [_Column(label, grid, window) for label, grid in grids.items()]
    if difference is not None:
        unknown = [label for label in difference if label not in grids]
        if unknown:
            raise UsageError(f"contact_sheet: difference of {unknown[0]!r}, but the images are {', '.join(grids)}")
        error = np.abs(grids[difference[0]] - grids[difference[1]])
        columns.append(_Column(f"|difference| x{gain:g}", error, (0.0, (window[1] - window[0]) / gain)))
    sheet = _Sheet(len(columns), len(slices), _tile_size(first), head=_HEAD)
    for at, column in enumerate(columns):
        sheet.label(at, column.label)
        for row, index in enumerate(slices):
            mark = f"{index + 1}" if at == 0 and count > 1 else ""
            sheet.paste(at, row, column.slices[index], column.window, mark)
    with atomic_path(path, overwrite=overwrite) as temporary:
        sheet.picture.save(temporary, format="PNG")


def _tile_size(image: Image) -> tuple[int, int]:
    """Width and height in pixels of a slice with square pixels: the smaller spacing is one pixel, or several."""
    dx, dy, _ = image.geometry.spacing
    _, rows, columns = image.array.shape
    width, height = columns * dx / min(dx, dy), rows * dy / min(dx, dy)
    enlarge = max(1, math.ceil(_TILE / max(width, height)))
    return max(1, round(width * enlarge)), max(1, round(height * enlarge))


class _Sheet:
    """The picture under construction; tiles shrink where the sheet would become too large."""

    def __init__(self, columns: int, rows: int, tile: tuple[int, int], head: int) -> None:
        from PIL import Image as PillowImage
        from PIL import ImageDraw, ImageFont

        room_x = (_SHEET - _GAP) / columns - _GAP
        room_y = (_SHEET - _GAP - head) / rows - _GAP
        shrink = min(1.0, room_x / tile[0], room_y / tile[1])
        self.tile = max(1, int(tile[0] * shrink)), max(1, int(tile[1] * shrink))
        self.head = head
        size = columns * (self.tile[0] + _GAP) + _GAP, rows * (self.tile[1] + _GAP) + _GAP + head
        self.picture: Picture = PillowImage.new("L", size, 40)
        self._draw = ImageDraw.Draw(self.picture)
        self._font = ImageFont.load_default(size=13)

    def _corner(self, column: int, row: int) -> tuple[int, int]:
        return _GAP + column * (self.tile[0] + _GAP), self.head + _GAP + row * (self.tile[1] + _GAP)

    def label(self, column: int, text: str) -> None:
        x, _ = self._corner(column, 0)
        while len(text) > 1 and self._draw.textlength(text, font=self._font) > self.tile[0]:
            text = text[:-1]
        self._draw.text((x, 4), text, fill=_INK, font=self._font)

    def paste(self, column: int, row: int, values: NDArray[Any], window: tuple[float, float], mark: str) -> None:
        from PIL import Image as PillowImage

        black, white = window
        grey = np.clip((values.astype(np.float64) - black) / (white - black), 0, 1)
        tile = PillowImage.fromarray(np.round(grey * 255).astype(np.uint8))
        if tile.size != self.tile:
            larger = self.tile[0] >= tile.size[0] and self.tile[1] >= tile.size[1]
            tile = tile.resize(self.tile, PillowImage.Resampling.BICUBIC if larger else PillowImage.Resampling.LANCZOS)
        corner = self._corner(column, row)
        self.picture.paste(tile, corner)
        if mark and self.tile[0] >= 24:
            place = corner[0] + 4, corner[1] + 2
            # a dark edge keeps the number readable on bright tissue
            self._draw.text(place, mark, fill=_INK, font=self._font, stroke_width=1, stroke_fill=0)
