"""``medrecon evaluate``: how good a reconstruction is."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import Changes, Device, Json, Quiet, Slices, Threads, parse_changes, parse_slices
from medrecon.cli.runtime import say
from medrecon.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CERTAINLY_HU = -100
_SUFFIXES = (".h5", ".hdf5", ".nii", ".nii.gz", ".npz", ".npy", ".mat", ".dcm", ".png")


def evaluate(
    reconstruction: Annotated[
        Path,
        Parameter(help="Image, folder of images, folder of a training run, or name of a trained model of ours."),
    ],
    /,
    *changes: Changes,
    reference: Annotated[
        Path | None,
        Parameter(alias="-r", help="Raw file with a reference, an image, or a folder of such with the same names."),
    ] = None,
    reference_slices: Slices = None,
    data: Annotated[
        list[Path] | None,
        Parameter(
            negative="",
            consume_multiple=True,
            help="Of a run: what to judge its model on; by default what it held out.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            alias="-o",
            help="Of a run: folder for evaluation.json and evaluation.png; by default evaluation in that of the run.",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """NMSE, PSNR and SSIM per volume by the definitions of fastMRI's evaluate.py.

    Both volumes are cropped to the centre (W, W) of the reference; PSNR and SSIM take the maximum of
    the reference volume as data range. CT numbers are shifted to HU + 1000 before. For two folders the
    table ends with mean ± 2 standard deviations. The model of a training run is applied to data that
    are measured as its recipe says; its table is by type of scan and acceleration.

    Examples: medrecon evaluate recon.h5 --reference scan.h5;
    medrecon evaluate runs/a --data multicoil_val;
    medrecon evaluate runs/a --data multicoil_val --data.mask.acceleration 8 --data.mask.center-fraction 0.04
    """
    if reference is None:
        from medrecon.models.shipped import shipped_models

        found = any((reconstruction / part / "config.json").is_file() for part in ("", "model"))
        if not found and str(reconstruction) not in shipped_models():
            raise UsageError(
                f"{reconstruction}: give --reference to compare images with; only the folder of a training run needs "
                "none"
            )
        from medrecon.cli.evaluate_run import evaluate_run

        evaluate_run(
            reconstruction,
            data or [],
            parse_changes(changes),
            output=output,
            device=device,
            threads=threads,
            as_json=as_json,
            quiet=quiet,
        )
        return
    if changes or data or output is not None:
        given = [*changes[:1], *(["--data"] if data else []), *(["--output"] if output is not None else [])]
        raise UsageError(f"{given[0]}: is for the folder of a training run, without --reference")
    from medrecon.metrics import evaluate_volume, over_volumes

    # what readers say of geometry is beside the point when pixel values are compared
    logging.getLogger("medrecon").setLevel(logging.ERROR)
    pairs = _pairs(reconstruction, reference)
    rows: list[tuple[str, dict[str, float]]] = []
    for image, truth in pairs:
        target = _volume(truth, reference=True)
        chosen = parse_slices(reference_slices, len(target))
        target = target if chosen is None else target[chosen.start : chosen.stop : chosen.step]
        estimate = _volume(image)
        if target.min() < _CERTAINLY_HU:
            say(f"note: {image.name}: CT numbers are compared as HU + 1000, which is proportional to attenuation")
            target, estimate = target + 1000, estimate + 1000
        scores = evaluate_volume(target, estimate)
        rows.append((image.name, {**scores, "data_range": float(target.max())}))
    summary = over_volumes([scores for _, scores in rows])
    if as_json:
        print_json({**summary, "volumes": [{"volume": name, **scores} for name, scores in rows]})
        return
    table = [[name, *(_number(key, value) for key, value in scores.items())] for name, scores in rows]
    if len(rows) > 1:
        spread = [f"{_number(n, summary[n])} ± {_number(n, summary[f'{n}_2std'])}" for n in ("nmse", "psnr", "ssim")]
        table.append([f"mean ± 2 std of {len(rows)}", *spread, ""])
    print_table("", ("volume", "NMSE", "PSNR (dB)", "SSIM", "data range"), table)


def _pairs(image: Path, reference: Path) -> list[tuple[Path, Path]]:
    if not image.is_dir() or not reference.is_dir() or any(reference.glob("*.dcm")):
        return [(image, reference)]
    truths = {_stem(path): path for path in sorted(reference.iterdir()) if _is_volume(path)}
    images = {_stem(path): path for path in sorted(image.iterdir()) if _is_volume(path)}
    missing = sorted(truths.keys() - images.keys())
    if missing or not truths:
        raise InputError(
            f"{image}: no reconstruction of {', '.join(missing[:5])}" if truths else f"{reference}: holds no volume"
        )
    extra = [images[name].name for name in sorted(images.keys() - truths.keys())]
    if extra:
        say(f"note: {len(extra)} images have no reference in {reference} and are left out: {', '.join(extra[:5])}")
    return [(images[name], path) for name, path in truths.items()]


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


def _stem(path: Path) -> str:
    from medrecon.io.writers.registry import source_stem

    return source_stem(path)


def _volume(path: Path, *, reference: bool = False) -> "NDArray[np.float32]":
    """Return the slices of an image file, or those of the reference that a raw file carries."""
    import numpy as np

    from medrecon.io import load_image, read_scan

    if reference and path.is_file():
        try:
            scan = read_scan(path)
        except InputError:
            return load_image(path).magnitude  # not raw data, so it should be an image
        if scan.reference is not None:
            return np.stack([scan.reference[index].numpy() for index in range(len(scan.reference))])
    return load_image(path).magnitude


def _number(name: str, value: float) -> str:
    return f"{value:.2f}" if name == "psnr" else f"{value:.4g}"
