"""Measured k-space, undersampled afterwards; the truth is the root sum of squares of all of it.

λ is chosen on simulated slices of training subjects with the same mask and as many coils. Of the files that are
here two are undersampled already and have no truth: a tenth of their samples is hidden, outside the centre, and
foretold by every image, ‖A_h x - y_h‖ / ‖y_h‖. The four-channel brain is
kept twice, as coil images and as ISMRMRD file made of them, and judged once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrecon.datasets import GroundTruth
from medrecon.io import read_scan
from medrecon.io.options import ReadOptions
from medrecon.operators import CartesianMRI
from medrecon.operators.fourier import centred_ifft
from medrecon.reconstructors.mri import root_sum_of_squares, sampling_pattern

from .case import Case, Work, plane_of
from .mri import Setup, known, lines, measured_case, points, radial, tuning_cases

FILES = {
    "T2 brain": (
        "ismrmrd_brain_4ch_derived/brain_4ch_full.h5",
        (lines("equispaced", 4, 4), lines("random", 4, 4), lines("equispaced", 8, 4), points("poisson-disc", 8, 4)),
    ),
    "sagittal T1 head": ("larson_sagittal_T1_1ch/se_t1_sag_data.mat", (radial(25), lines("random", 4, 1))),
    "axial T2, k-space of a magnitude": ("swastling_axial_T2_fft/kspace.mat", (radial(25), lines("random", 4, 1))),
}
NO_TRUTH = {
    "brain, 8 coils, measured at 8x": (
        "sigpy_brain_8ch_R8/cartesian_ksp.npy",
        "coil,y,x",
        points("poisson-disc", 8, 8),
    ),
    "object of SIRF, 4 coils, measured at 2x": (
        "ismrmrd_sirf_grappa2_simulated/grappa2_1rep.h5",
        None,
        lines("equispaced", 4, 4),
    ),
}
MAGNITUDE_7T = "pysap_7T_brain_ref/example_mri_ref_image_2d.npy"


def works(folder: Path, tuning: Sequence[GroundTruth]) -> Iterable[Work]:
    """Yield the work on the files that are there."""

    def work(name: str, setup: Setup, measure: Callable[[], Sequence[Case]]) -> Work:
        return Work(name, "mri", measure, setup.name, tuning_cases(tuning, setup))

    for name, (file, setups) in FILES.items():
        if not (folder / file).is_file():
            print(f"{name} is left out: no {folder / file}")
            continue
        for setup in setups:
            yield work(f"measured k-space, {name}, {setup.name}", setup, partial(undersampled, folder / file, setup))
    if (folder / MAGNITUDE_7T).is_file():
        for setup in (radial(25), lines("random", 4, 8)):
            yield work(f"simulated MRI of a 7T T2* brain, {setup.name}", setup, partial(of_7t, folder, setup))
    for name, (file, axes, setup) in NO_TRUTH.items():
        if (folder / file).is_file():
            yield work(f"measured k-space, {name}", setup, partial(_as_measured, folder / file, axes))


def undersampled(file: Path, setup: Setup, *, combined: bool = False) -> list[Case]:
    """Undersample a measured file; if ``combined``, the truth is the full scan through the maps of the reconstruction.

    The root sum of squares shows noise where there is no object, which no combination with coil maps does.
    """
    full = read_scan(file).measurements[0]
    mask = setup.mask((full.shape[-2], full.shape[-1]), torch.Generator().manual_seed(0))
    y, operator = known((full * mask)[None], mask)
    if combined:
        truth = plane_of(CartesianMRI(torch.ones_like(mask), operator.maps).adjoint(full[None]))
    else:
        truth = root_sum_of_squares(centred_ifft(full)).numpy()
    return [Case(file.name, file.name, y, operator, truth)]


def _as_measured(file: Path, axes: str | None) -> list[Case]:
    data = read_scan(file, ReadOptions(axes=axes)).measurements[0]
    mask = (data != 0).any(0)
    y, operator = known(data[None], mask)
    foretold = mask & hidden(mask)
    parts = [CartesianMRI(part, operator.maps) for part in (mask & ~foretold, foretold)]
    seen, unseen = ((y * part.mask, part) for part in parts)
    return [Case(file.name, file.name, *seen, None, unseen)]


def hidden(mask: Tensor) -> Tensor:
    """Draw a tenth of the points, or of the lines, outside the central eighth of rows and columns, bool (H, W)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = ((torch.arange(side) - side // 2).abs() > side // 16 for side in mask.shape)
    if sampling_pattern(mask) == "points":
        outside = rows[:, None] | columns
    else:
        outside = columns if (mask.all(0) == mask.any(0)).all() else rows[:, None]
    return (outside & (torch.rand(outside.shape, generator=generator) < 0.1)).expand(mask.shape)


def of_7t(folder: Path, setup: Setup) -> list[Case]:
    """Measure the magnitude of a brain at 7T."""
    plane = torch.from_numpy(np.load(folder / MAGNITUDE_7T, allow_pickle=False)).float()
    return [measured_case(plane / plane.max(), setup, 0, MAGNITUDE_7T, "7T")]
