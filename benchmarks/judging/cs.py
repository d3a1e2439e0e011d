"""Block compressed sensing of natural images that nothing was trained on."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.operators import BlockCompressedSensing

from .case import Case, Work, centred

SIZE = 256
RATIOS = (10, 25, 40, 50)
JUDGED = "natural/skimage_samples"
TUNING = "natural/bsd400_train_gray"
# no photographs of anything
_LEFT_OUT = ("text", "page")


def pictures(folder: Path, count: int) -> list[tuple[str, Tensor]]:
    """Return grey images, 0 to 1, the centre of those that are large enough, or small ones whole."""
    from PIL import Image

    found = []
    for file in sorted(path for path in folder.glob("*") if path.suffix in (".png", ".jpg")):
        with Image.open(file) as image:
            grey = torch.from_numpy(np.asarray(image.convert("L"), np.float32) / 255)
        if file.stem not in _LEFT_OUT:
            found.append((file.stem, centred(grey, min(SIZE, *grey.shape))))
        if len(found) == count:
            break
    return found


def case(name: str, image: Tensor, percent: int, seed: int) -> Case:
    """Measure an image, with a permutation of its own."""
    shape = (1, image.shape[0], image.shape[1])
    operator = BlockCompressedSensing(shape, percent / 100, permutation_seed=seed)
    with torch.no_grad():
        return Case(name, name, operator(image[None, None]), operator, image.numpy())


def works(judged: Sequence[tuple[str, Tensor]], tuning: Sequence[tuple[str, Tensor]], *, quick: bool) -> Iterable[Work]:
    """Yield the work."""
    for percent in RATIOS[1:2] if quick else RATIOS:
        yield Work(
            f"block CS, {percent} %",
            "cs",
            partial(cases, judged, percent, 0),
            f"block CS, {percent} %",
            partial(cases, tuning, percent, 10_000),
        )


def cases(images: Sequence[tuple[str, Tensor]], percent: int, first_seed: int) -> list[Case]:
    """Measure images, each with a permutation of its own."""
    return [case(name, image, percent, first_seed + index) for index, (name, image) in enumerate(images)]
