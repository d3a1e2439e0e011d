"""``medrecon reconstruct``: raw data in, images out."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from medrecon.cli.console import print_json, print_line, progress_bar
from medrecon.cli.options import (
    Axes,
    Calibration,
    Center,
    Device,
    HalfFovShift,
    ImageSize,
    Json,
    Key,
    Mask,
    MaxBytes,
    MuWater,
    Nonfinite,
    Overwrite,
    PixelSize,
    Quiet,
    Repetitions,
    Seed,
    Slices,
    SuppressRings,
    Threads,
    parse_center,
    parse_slices,
)
from medrecon.cli.runtime import exit_code_of, say, set_up_log, set_up_torch, spare_inputs
from medrecon.errors import MedreconError, UsageError

if TYPE_CHECKING:
    from medrecon.io import ReadOptions, Scan
    from medrecon.io.writers.registry import OutputPlan
    from medrecon.reconstructors.base import Reconstructor
    from medrecon.reconstructors.plan import ReconstructionPlan

_METHOD = Group("Method")
_OUTPUT = Group("Output")
_MAPS = ("espirit", "walsh", "low-resolution")
_DRAWS = 8
_DEVIATION = "std"


@dataclass(frozen=True)
class _Writing:
    """How results are written."""

    overwrite: bool
    template: Path | None
    template_geometry: bool
    dry_run: bool


def reconstruct(
    files: Annotated[
        list[Path], Parameter(help="Raw data, or folders of HDF5 files; several files share all options.")
    ],
    /,
    *,
    output: Annotated[
        str,
        Parameter(
            alias="-o", help="File (.nii.gz, .nii, .dcm, .h5, .npz, .png) or folder; the suffix decides.", group=_OUTPUT
        ),
    ],
    output_format: Annotated[
        Literal["nifti", "dicom", "hdf5", "npz", "png"] | None,
        Parameter(name="--format", help="Format within a folder; default NIfTI.", group=_OUTPUT),
    ] = None,
    template: Annotated[
        Path | None,
        Parameter(help="DICOM file or series whose patient and study the written DICOM joins.", group=_OUTPUT),
    ] = None,
    template_geometry: Annotated[
        bool, Parameter(negative="", help="Take over the template's position as well.", group=_OUTPUT)
    ] = False,
    method: Annotated[
        str, Parameter(alias="-m", help="auto, or one that 'medrecon methods' lists.", group=_METHOD)
    ] = "auto",
    regularization: Annotated[
        float | None, Parameter(name="--lambda", help="Strength of the regularisation.", group=_METHOD)
    ] = None,
    iterations: Annotated[int | None, Parameter(help="Largest number of iterations.", group=_METHOD)] = None,
    maps: Annotated[
        str | None,
        Parameter(
            help="Coil sensitivities: espirit (default), walsh, low-resolution, or a file that holds them. With a "
            "trained model the default is what it was trained with.",
            group=_METHOD,
        ),
    ] = None,
    filter_name: Annotated[
        Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"] | None,
        Parameter(name="--filter", help="Window of filtered back-projection (fbp); hann is smoothest.", group=_METHOD),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        Parameter(
            help="Folder of a training run or a trained model, or the name of one that 'medrecon methods' lists; it "
            "names the method.",
            group=_METHOD,
        ),
    ] = None,
    nonnegative: Annotated[
        bool | None, Parameter(help="Keep real images at or above 0 (fbp, sirt, tv).", group=_METHOD)
    ] = None,
    steps: Annotated[int | None, Parameter(help="Network calls of a draw (ddnm, dddm).", group=_METHOD)] = None,
    samples: Annotated[
        int | None, Parameter(help="Draws whose mean is the image (ddnm, bcm, dddm).", group=_METHOD)
    ] = None,
    noise: Annotated[
        float | None,
        Parameter(
            help="Standard deviation of the noise as a share of the brightest pixels (ddnm, bcm, dddm).", group=_METHOD
        ),
    ] = None,
    uncertainty: Annotated[
        bool,
        Parameter(
            negative="",
            help="Write the standard deviation of every pixel over the draws as well, NAME_std beside the image.",
            group=_METHOD,
        ),
    ] = False,
    slices: Slices = None,
    key: Key = None,
    axes: Axes = None,
    mask: Mask = None,
    calibration: Calibration = None,
    repetitions: Repetitions = "average",
    nonfinite: Nonfinite = "error",
    half_fov_shift: HalfFovShift = False,
    center: Center = None,
    suppress_rings: SuppressRings = False,
    pixel_size: PixelSize = None,
    image_size: ImageSize = None,
    mu_water: MuWater = None,
    max_bytes: MaxBytes = None,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    dry_run: Annotated[bool, Parameter(negative="", help="Say what would be done, and stop.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Reconstruct raw data to an image with its geometry, and a JSON sidecar that tells how.

    Without --method, fully sampled MRI gets the root sum of squares. Everything else gets the trained
    model that comes with medrecon for its modality, where there is one and the scan is like those that
    it was trained for; if not, densely sampled CT gets filtered back-projection, and the rest the
    default of 'medrecon methods'. --lambda, --iterations and their like ask for a classical method. In
    MRI the sampling mask comes from the file, from --mask, or is read off the exact zeros, and coil
    sensitivities come from the calibration lines. Not for diagnostic use.

    Examples: medrecon reconstruct scan.h5 -o out/;
    medrecon reconstruct kspace.npy --axes coil,y,x -o brain.dcm --method tv --lambda 0.003;
    medrecon reconstruct tooth.h5 -o tooth.nii.gz --center auto --pixel-size 0.0013;
    medrecon reconstruct scan.h5 -o out/ --checkpoint runs/knee
    """
    set_up_log(quiet=quiet)
    from medrecon.io import ReadOptions
    from medrecon.reconstructors.plan import ReconstructionPlan, prepare_method

    options = ReadOptions(
        key=key,
        axes=axes,
        mask=mask,
        maps=None if maps is None or maps in _MAPS else Path(maps),
        calibration=calibration,
        repetitions=repetitions,
        nonfinite=nonfinite,
        half_fov_shift=half_fov_shift,
        max_bytes=max_bytes,
        center=parse_center(center),
        suppress_rings=suppress_rings,
        pixel_size=pixel_size,
        image_size=image_size,
        mu_water=mu_water,
    )
    parameters = {
        "regularization": regularization,
        "max_iter": iterations,
        "filter": filter_name,
        "nonnegative": nonnegative,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "steps": steps,
        "samples": _DRAWS if samples is None and uncertainty else samples,
        "noise": noise,
    }
    files, folders = _expanded(files)
    if folders and output_format is None:
        output_format = "hdf5"  # as fastMRI's submissions are
    plan = ReconstructionPlan(
        method=method,
        parameters={name: value for name, value in parameters.items() if value is not None},
        maps=maps if maps in _MAPS else None,  # type: ignore[arg-type]  # one of the literals
        device=set_up_torch(device, threads),
        seed=seed,
        uncertainty=uncertainty,
    )
    writing = _Writing(overwrite, template, template_geometry, dry_run)
    outputs = _plan_outputs(files, output, output_format, writing)
    second = [target.beside(_DEVIATION) for target in outputs] if uncertainty else []
    for target in second:
        target.check(overwrite=overwrite, sidecar=False)
    spare_inputs(
        [path for target in (*outputs, *second) for path in (target.path, target.sidecar)],
        [*files, options.mask, options.maps, options.calibration, template],
    )
    reconstructor = prepare_method(plan)
    results, codes = [], []
    for file, target in zip(files, outputs, strict=True):
        try:
            results.append(_one(file, target, options, plan, reconstructor, slices, writing, quiet=quiet))
        except (MedreconError, MemoryError) as error:
            if len(files) == 1:
                raise
            codes.append(exit_code_of(error))
            results.append({"input": file.name, "error": str(error)})
    if as_json:
        print_json(results if len(files) > 1 else results[0])
    else:
        for result in results:
            for path in result.get("output", []):
                print_line(path)
    if codes:
        say(f"{len(codes)} of {len(files)} files failed")
        return 6
    return 0


def _expanded(files: list[Path]) -> tuple[list[Path], bool]:
    """Return the HDF5 files of folders in their place, and whether there was such a folder."""
    found: list[Path] = []
    folders = False
    for path in files:
        inside = sorted(path.glob("*.h5")) if path.is_dir() else []
        found += inside or [path]
        folders = folders or bool(inside)
    return found, folders


def _plan_outputs(files: list[Path], output: str, kind: Any, writing: _Writing) -> list["OutputPlan"]:  # noqa: ANN401
    """Decide and check all outputs before any work starts."""
    from medrecon.io.writers.registry import plan_output, source_stem, template_for

    plans = [plan_output(output, source_stem(file), format=kind) for file in files]
    if len({plan.path for plan in plans}) < len(plans):
        raise UsageError(
            f"-o {output}: {len(files)} inputs would be written to the same file; give a folder, and inputs with "
            "different names"
        )
    for plan in plans:
        plan.check(overwrite=writing.overwrite)
    template_for(plans[0], writing.template, template_geometry=writing.template_geometry)
    return plans


def _one(
    file: Path,
    target: "OutputPlan",
    options: "ReadOptions",
    plan: "ReconstructionPlan",
    reconstructor: "Reconstructor | None",
    slices: str | None,
    writing: _Writing,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Reconstruct one file; return what was done, ready for JSON."""
    from medrecon.io import read_scan, write_image
    from medrecon.io.digest import file_digest
    from medrecon.reconstructors.volume import reconstruct_scan

    scan = read_scan(file, options)
    for note in scan.notes:
        say(f"note: {note}") if not quiet else None
    if target.format == "dicom" and scan.modality == "CT" and scan.mu_water is None:
        raise UsageError(
            f"{file.name}: DICOM holds CT images in Hounsfield units, and the file does not state the attenuation of "
            "water; give it with --mu-water (0.02 per mm is usual), or write a .nii.gz in 1/mm"
        )
    plan = replace(plan, slices=parse_slices(slices, len(scan.measurements)))
    if writing.dry_run:
        return _dry(scan, plan, target)
    start = time.perf_counter()
    with progress_bar(f"{file.name}", quiet=quiet) as progress:
        image = reconstruct_scan(scan, plan, reconstructor=reconstructor, progress=progress)
    seconds = time.perf_counter() - start
    source = {"file": file.name, "format": scan.format, "sha256": file_digest(file)}
    image = replace(image, provenance={"input": source, **image.provenance, "seconds": round(seconds, 3)})
    written = write_image(
        image,
        target,
        overwrite=writing.overwrite,
        template=writing.template,
        template_geometry=writing.template_geometry,
    )
    if image.deviation is not None:
        spread = replace(image, array=image.deviation, deviation=None)
        written += write_image(spread, target.beside(_DEVIATION), overwrite=writing.overwrite, sidecar=False)
    used, residual = image.provenance["method"], image.provenance["residual"]
    if not quiet:
        evidence = "" if residual is None else f", residual {residual['mean']:.3g}"
        say(f"{file.name}: {used}, {len(image.array)} slices in {seconds:.1f} s{evidence}")
    done = {"method": used, "residual": residual, "seconds": image.provenance["seconds"]}
    return {"input": file.name, "output": [str(path) for path in written], **done}


def _dry(scan: "Scan", plan: "ReconstructionPlan", target: "OutputPlan") -> dict[str, Any]:
    from medrecon.cli.info import describe

    found = describe(scan, plan)
    say(f"dry run: {scan.source.name} ({scan.format}) by {found['method']['name']}: {found['method']['reason']}")
    say(f"dry run: would write {target.path} and {target.sidecar.name}")
    return {"input": scan.source.name, "dry_run": True, "would_write": str(target.path), **found}
