"""``medrecon simulate``: images in, measurements out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from medrecon.cli.console import print_json, print_line
from medrecon.cli.options import Json, Key, MaxBytes, Overwrite, Quiet, Seed, Slices, parse_slices
from medrecon.cli.runtime import say, set_up_log, spare_inputs
from medrecon.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medrecon.io import Image
    from medrecon.operators import LinearOperator
    from medrecon.operators.recipes import Recipe

Unit = Literal["auto", "hu", "mu"]
CT = ("ct-parallel", "ct-fan")


@dataclass(frozen=True)
class _Photons:
    """Options of a CT measurement."""

    counts: float | None
    electronic_noise: float
    unit: Unit
    mu_water: float | None


def simulate(
    image: Annotated[Path, Parameter(help="MR, CT or natural image: NIfTI, NRRD, DICOM, PNG, NPZ, HDF5 …")],
    /,
    *,
    operator: Annotated[str, Parameter(help="Recipe that 'medrecon operators' lists, or a YAML file of your own.")],
    output: Annotated[Path, Parameter(alias="-o", help="HDF5 file: fastMRI's layout for MRI, else medrecon's own.")],
    noise: Annotated[float, Parameter(help="Standard deviation of the noise, relative to the brightest pixel.")] = 0.0,
    counts: Annotated[
        float | None, Parameter(help="CT: photons a ray without an object (Poisson noise); none for no noise.")
    ] = None,
    electronic_noise: Annotated[
        float, Parameter(help="CT: standard deviation of the detector's electronics, in photons.")
    ] = 0.0,
    unit: Annotated[
        Unit,
        Parameter(help="CT: image values are Hounsfield units or 1/mm; auto: DICOM says so, else values below -100."),
    ] = "auto",
    mu_water: Annotated[
        float | None, Parameter(help="CT: attenuation of water in 1/mm, for Hounsfield units; default 0.02.")
    ] = None,
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

    Examples: medrecon simulate brain.nii.gz --operator mri-cartesian-4x --noise 0.01 -o scan.h5;
    medrecon simulate chest.nii.gz --operator ct-parallel-60 --counts 1e5 -o sinogram.h5
    """
    set_up_log(quiet=quiet)
    import torch

    from medrecon.io import load_image
    from medrecon.io.writers.atomic import check_writable
    from medrecon.operators.recipes import load_recipe

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
    if recipe.operator in CT:
        if noise:
            raise UsageError("--noise is for receivers; CT has --counts (photons a ray) and --electronic-noise")
        physics = _Photons(counts, electronic_noise, unit, mu_water)
        measurements, drawn = _simulate_ct(output, loaded, recipe, physics, generator, overwrite=overwrite)
    else:
        if counts is not None or electronic_noise or unit != "auto" or mu_water is not None:
            raise UsageError(f"--counts, --electronic-noise, --unit and --mu-water are for CT, not for {recipe.name}")
        measurements, drawn = _simulate_other(
            output, loaded, recipe, noise, generator, phase=phase, overwrite=overwrite
        )
    if as_json:
        print_json({"output": str(output), "operator": drawn.config(), "shape": list(measurements.shape), "seed": seed})
        return
    print_line(str(output))
    if not quiet:
        say(f"{output.name}: {recipe.name}, {len(measurements)} slices of {tuple(measurements.shape[1:])}")


def _simulate_ct(
    path: Path, image: "Image", recipe: "Recipe", physics: _Photons, generator: "torch.Generator", *, overwrite: bool
) -> tuple["Tensor", "LinearOperator"]:
    """Write the sinogram of an image in the layout of :mod:`medrecon.io.readers.sinogram`."""
    from medrecon.io.writers.sinogram import write_sinogram
    from medrecon.operators.ct.hounsfield import MU_WATER
    from medrecon.simulation.tomography import simulate_sinogram

    simulated = simulate_sinogram(
        image,
        recipe,
        counts=physics.counts,
        electronic_noise=physics.electronic_noise,
        unit=physics.unit,
        mu_water=MU_WATER if physics.mu_water is None else physics.mu_water,
        generator=generator,
    )
    write_sinogram(
        path,
        simulated.data,
        simulated.operator,
        quantity=simulated.quantity,
        i0=physics.counts,
        reference=simulated.reference,
        geometry=image.geometry,
        mu_water=simulated.mu_water,
        overwrite=overwrite,
    )
    return simulated.data, simulated.operator


def _simulate_other(
    path: Path,
    image: "Image",
    recipe: "Recipe",
    noise: float,
    generator: "torch.Generator",
    *,
    phase: bool,
    overwrite: bool,
) -> tuple["Tensor", "LinearOperator"]:
    """Measure with any other operator; MRI gets a phase, and a reference that is the magnitude."""
    import torch

    from medrecon.simulation import simulate as measure
    from medrecon.simulation import smooth_phase

    is_mri = recipe.operator == "cartesian-mri"
    x = torch.from_numpy(image.array if is_mri else image.magnitude)
    truth = x.abs().float() if is_mri else x
    if is_mri and not x.is_complex() and bool((x < 0).any()):
        say("warning: values below 0 (CT numbers?); MRI's reference is the magnitude, in which they are positive")
    if is_mri and phase and not x.is_complex():
        height, width = x.shape[-2:]
        x = torch.polar(x.float(), smooth_phase((height, width), generator).expand_as(x))
    measurements, drawn = measure(x, recipe, noise=noise, generator=generator)
    _write(path, image, truth, measurements, drawn, overwrite=overwrite)
    return measurements, drawn


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
