"""PNG pictures of slices: the truth, every method, and five times its error below."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .case import Plane, Work
from .methods import Method
from .score import Outcome, paired

_HEAD = 16
_SMALLEST = 192
ERROR_GAIN = 5


def sheet(path: Path, truth: Plane | None, images: Mapping[str, Plane]) -> None:
    """Write one picture; white is the brightest pixel of the truth, mid-grey in the lower row is no error.

    Without a truth every image has its own brightest pixel in white.
    """
    from PIL import Image, ImageDraw

    shown = {} if truth is None else {"truth": truth}
    shown |= images
    rows = [{name: image / max(float(image.max()), 1e-30) for name, image in shown.items()}]
    if truth is not None:
        white = float(truth.max())
        rows = [
            {name: image / white for name, image in shown.items()},
            {name: 0.5 + ERROR_GAIN * (image - truth) / white for name, image in shown.items()},
        ]
    factor = -(-_SMALLEST // next(iter(shown.values())).shape[1])
    height, width = (factor * size for size in next(iter(shown.values())).shape)
    canvas = Image.new("L", (width * len(shown), (height + _HEAD) * len(rows)), 255)
    draw = ImageDraw.Draw(canvas)
    for down, planes in enumerate(rows):
        for along, (name, plane) in enumerate(planes.items()):
            grey = np.rint(255 * plane.clip(0, 1)).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
            canvas.paste(Image.fromarray(grey), (along * width, down * (height + _HEAD) + _HEAD))
            title = name if down == 0 else f"{ERROR_GAIN} x error"
            draw.text((along * width + 2, down * (height + _HEAD) + 2), title, fill=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def show(folder: Path, work: Work, methods: Mapping[str, Method], outcome: Outcome) -> None:
    """Write the slice where a trained model gains least over TV, and that of the median gain."""
    trained = [who for who in methods if methods[who].learned]
    if not trained:
        return
    order: Sequence[int] = [0]
    if work.cases[0].truth is not None:
        gains = [score["psnr"] - other["psnr"] for score, other in paired(outcome.scores, trained[0])]
        order = np.argsort(gains).tolist()
    hidden = {"medrecon cgls", "medrecon cg-sense"}
    for word, index in {"worst": order[0], "median": order[len(order) // 2]}.items():
        if word == "median" and len(order) == 1:
            continue
        case = work.cases[index]
        images = {}
        for who in methods:
            if who not in hidden:
                score = outcome.scores[who][index].get("psnr")
                images[who if score is None else f"{who} {score:.2f} dB"] = outcome.images[who][index]
        sheet(folder / f"{file_name(work.name)}-{word}.png", case.truth, images)


def file_name(text: str) -> str:
    """Return a text as the name of a file."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in text.lower())
    return "-".join(part for part in kept.split("-") if part)
