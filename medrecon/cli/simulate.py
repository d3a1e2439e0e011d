"""``medrecon simulate``: images in, measurements out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from medrecon.cli.console import print_json, print_line
from medrecon.cli.options import Json, Key, MaxBytes, Overwrite, Quiet, Seed, Slices, parse_slices
from medrecon.cli.runtime import say, set_up_log, spare_inputs
from medrecon.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from medrecon.io import Image
    from medrecon.operators import LinearOperator


def simulate(
    image: Annotated[Path, Parameter(help="MR, CT or natural image: NIfTI, DICOM file or series, PNG, NPZ, HDF5 …")],
    /,
    *,
    operator: Annotated[str, Parameter(help="Recipe that 'medrecon operators' lists, or a YAML file of your own.")],
    output: Annotated[Path, Parameter(alias="-o", help="HDF5 file: fastMRI's layout for MRI, else medrecon's own.")],
    noise: Annotated[float, Parameter(help="Standard deviation of the noise, relative to the brightest pixel.")] = 0.0,
    phase: Annotated[bool, Parameter(help="Give a real image a smooth random phase (MRI).")] = True,
    slices: Slices = None,
    key: Key = None,
    max_bytes: MaxBytes = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate measurements of an image: coils, undersampling and noise for MRI, or any other operator.

    The file holds the true image as its reference, so that 'medrecon evaluate' can compare.

    Example: medrecon simulate brain.nii.gz --operator mri-cartesian-4x --noise 0.01 -o scan.h5
    """
    set_up_log(quiet=quiet)
    import torch

    from medrecon.io import load_image
    from medrecon.io.writers.atomic import check_writable
    from medrecon.operators.recipes import load_recipe
    from medrecon.simulation import simulate as measure
    from medrecon.simulation import smooth_phase

    if output.suffix not in (".h5", ".hdf5"):
        raise UsageError(f"-o {output}: measurements are written as HDF5; expected a name that ends in .h5")
    check_writable(output, overwrite=overwrite)
    spare_inputs([output], [image])
    recipe = load_recipe(operator)
    loaded = load_image(image, key, max_bytes=max_bytes)
    chosen = parse_slices(slices, len(loaded.array))
    if chosen is not None:
        from medrecon.reconstructors.volume import slices_geometry

        array = loaded.array[chosen.start : chosen.stop : chosen.step]
        loaded = replace(loaded, array=array, geometry=slices_geometry(loaded.geometry, chosen))
    generator = torch.Generator().manual_seed(seed)
    is_mri = recipe.operator == "cartesian-mri"
    x = torch.from_numpy(loaded.array if is_mri else loaded.magnitude)
    truth = x.abs().float() if is_mri else x
    if is_mri and not x.is_complex() and bool((x < 0).any()):
        say(
            f"warning: {image.name}: values below 0 (CT numbers?); MRI's reference is the magnitude, in which they are "
            "positive"
        )
    if is_mri and phase and not x.is_complex():
        height, width = x.shape[-2:]
        x = torch.polar(x.float(), smooth_phase((height, width), generator).expand_as(x))
    measurements, drawn = measure(x, recipe, noise=noise, generator=generator)
    _write(output, loaded, truth, measurements, drawn, overwrite=overwrite)
    if as_json:
        print_json({"output": str(output), "operator": drawn.config(), "shape": list(measurements.shape), "seed": seed})
        return
    print_line(str(output))
    if not quiet:
        say(f"{output.name}: {recipe.name}, {len(measurements)} slices of {tuple(measurements.shape[1:])}")


def _write(
    path: Path, image: "Image", truth: "Tensor", measurements: "Tensor", operator: "LinearOperator", *, overwrite: bool
) -> None:
    """Write k-space as fastMRI files have it, and the measurements of other operators in our own layout."""
    from medrecon.io.writers.measurements import write_fastmri, write_native
    from medrecon.operators import CartesianMRI

    if not isinstance(operator, CartesianMRI):
        write_native(
            path,
            measurements,
            operator,
            reference=truth,
            geometry=image.geometry,
            modality=image.modality,
            overwrite=overwrite,
        )
        return
    mask = operator.mask[0]
    lines = bool((mask == mask[:1]).all())
    write_fastmri(
        path,
        measurements,
        mask=mask[0] if lines else None,  # the layout knows lines only; points are read off the exact zeros
        reference=truth,
        geometry=image.geometry,
        header=image.header,
        overwrite=overwrite,
    )
