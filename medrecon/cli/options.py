"""Options that several commands share, with their help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from medrecon.errors import UsageError

_INPUT = Group("What the file does not say")
_RUN = Group("Running")

Key = Annotated[str | None, Parameter(help="Dataset or variable that holds the measurements.", group=_INPUT)]
Axes = Annotated[
    str | None,
    Parameter(help="Axes of a bare array, comma separated: coil,y,x or slice,coil,y,x …", group=_INPUT),
]
Mask = Annotated[
    Path | None,
    Parameter(help="Sampling mask: .npy, .npz, .mat, .cfl or .h5 with (W), (H, W) or (S, H, W).", group=_INPUT),
]
Calibration = Annotated[Path | None, Parameter(help="Separate, fully sampled calibration k-space.", group=_INPUT)]
Repetitions = Annotated[
    Literal["average", "first"], Parameter(help="What to do with repeated lines or volumes.", group=_INPUT)
]
Nonfinite = Annotated[
    Literal["error", "zero"], Parameter(help="Stop at NaN or Inf in the data, or take them as 0.", group=_INPUT)
]
HalfFovShift = Annotated[bool, Parameter(negative="", help="Move the image by half the field of view.", group=_INPUT)]
_CT = Group("CT")
Center = Annotated[
    str | None,
    Parameter(help="Detector column of the rotation axis, from 0, or auto to estimate it.", group=_CT),
]
SuppressRings = Annotated[
    bool, Parameter(negative="", help="Remove the stripes of uneven detector bins (ring artefacts).", group=_CT)
]
PixelSize = Annotated[
    float | None, Parameter(help="Pitch of the detector at the axis in mm, where the file does not say.", group=_CT)
]
ImageSize = Annotated[int | None, Parameter(help="Rows and columns of the image, over the same extent.", group=_CT)]
MuWater = Annotated[
    float | None, Parameter(help="Attenuation of water in 1/mm: write Hounsfield units (0.02 is usual).", group=_CT)
]
MaxBytes = Annotated[
    int | None, Parameter(help="Refuse inputs that declare more; default half of the free memory.", group=_INPUT)
]
Slices = Annotated[str | None, Parameter(help="Which slices: 7, 0:10 or 0:30:3; the first is 0, the last left out.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Where to compute.", group=_RUN)]
Threads = Annotated[int | None, Parameter(help="Processor threads; default all that this process may use.", group=_RUN)]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Machine-readable result on standard output.", group=_RUN)
]
Quiet = Annotated[
    bool, Parameter(alias="-q", negative="", help="No progress and no log, only warnings and errors.", group=_RUN)
]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace existing results.", group=_RUN)]
Changes = Annotated[
    str,
    Parameter(
        name="--FIELD",
        allow_leading_hyphen=True,
        help="Any field of the training recipe: --training.epochs 5; 'medrecon train --keys' lists them.",
    ),
]
Seed = Annotated[int, Parameter(help="Of everything that is drawn at random.", group=_RUN)]


def parse_slices(text: str | None, count: int) -> range | None:
    """Turn ``7``, ``0:10``, ``:10`` or ``0:30:3`` into a range within ``count`` slices."""
    if text is None:
        return None
    parts = text.split(":")
    try:
        numbers = [int(part) if part else None for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        chosen = range(numbers[0], numbers[0] + 1)
    elif len(numbers) in (2, 3) and (numbers[2:] or [1])[0] not in (0,):
        start, stop, step = [*numbers, None][:3]
        chosen = range(start or 0, count if stop is None else stop, 1 if step is None else step)
    else:
        raise UsageError(f"--slices {text}: expected a number, or start:stop or start:stop:step, e.g. 0:10")
    if not chosen or min(chosen) < 0 or max(chosen) >= count or chosen.step < 1:
        raise UsageError(f"--slices {text}: there are {count} slices, 0 to {count - 1}; the end of a range is left out")
    return chosen


def parse_center(text: str | None) -> float | Literal["auto"] | None:
    """Return the column, "auto" or None for --center."""
    if text is None or text == "auto":
        return None if text is None else "auto"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--center {text}: expected a detector column such as 295.5, or auto") from None


def parse_changes(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Turn ``--training.epochs 5`` and ``--training.epochs=5`` into pairs of dotted key and value."""
    import yaml

    left = list(words)
    pairs: list[tuple[str, Any]] = []
    while left:
        word = left.pop(0)
        name, given, text = word.partition("=")
        if not name.startswith("--") or len(name) < 3:
            raise UsageError(f"{word}: expected a field of the recipe such as --training.epochs 5")
        if not given:
            if not left:
                raise UsageError(f"{name}: needs a value")
            text = left.pop(0)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{name}: {text!r} is not a value ({error})") from error
        pairs.append((name[2:].replace("-", "_"), value))
    return pairs
