"""Simulated MRI of held-back brains: one coil on pseudo-radial masks, eight coils on lines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from medrecon.datasets import GroundTruth
from medrecon.io.scan import CartesianAcquisition
from medrecon.operators import CartesianMRI
from medrecon.operators.samplers.registry import make_sampler
from medrecon.reconstructors.mri import slice_operator
from medrecon.simulation import CoilArray, simulate, smooth_phase

from .case import Case, Plane, Published, Work, centred

SIZE = 256
NOISE = 0.005
# Zhang and Ghanem, CVPR 2018, on 50 brain slices
ISTA_NET = {10: 34.6, 20: 38.7, 30: 41.0, 40: 42.7, 50: 44.1}


@dataclass(frozen=True)
class Setup:
    """How a slice is measured: the sampler of its mask with its parameters, and the coils."""

    name: str
    sampler: str
    parameters: Mapping[str, float]
    coils: int = 1
    published: tuple[Published, ...] = field(default=())

    def mask(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw a mask, bool (H, W)."""
        drawn = make_sampler(self.sampler, dict(self.parameters)).draw(shape, generator) > 0
        return drawn.expand(shape)

    def operator(self, shape: tuple[int, int], generator: torch.Generator) -> CartesianMRI:
        """Draw an operator with its true maps."""
        mask = self.mask(shape, generator)
        maps = CoilArray(self.coils).draw(shape, generator) if self.coils > 1 else None
        return CartesianMRI(mask, maps, image_shape=shape)


def radial(percent: int) -> Setup:
    """Return the pseudo-radial acquisition of a share of k-space, one coil."""
    published = (Published("ISTA-Net+, published", ISTA_NET[percent]),) if percent in ISTA_NET else ()
    return Setup(f"1 coil, radial {percent} %", "radial", {"acceleration": 100 / percent}, published=published)


def lines(sampler: str, acceleration: int, coils: int) -> Setup:
    """Return an acquisition of parallel lines, 8 % of them for calibration at 4x and 4 % at 8x."""
    parameters = {"acceleration": acceleration, "center_fraction": 0.32 / acceleration}
    return Setup(f"{_count(coils)}, {sampler} lines {acceleration}x", sampler, parameters, coils)


def points(sampler: str, acceleration: int, coils: int) -> Setup:
    """Return an acquisition of points, denser in the centre, as its sampler draws them by itself."""
    name = {"poisson-disc": "Poisson disc", "variable-density-points": "variable density"}[sampler]
    return Setup(f"{_count(coils)}, {name} {acceleration}x", sampler, {"acceleration": acceleration}, coils)


def _count(coils: int) -> str:
    return "1 coil" if coils == 1 else f"{coils} coils"


EIGHT_COILS_4X = lines("random", 4, 8)
RADIAL_25 = radial(25)


def setups(*, quick: bool) -> list[Setup]:
    """Return all acquisitions; two for a quick run."""
    if quick:
        return [radial(30), lines("random", 4, 4)]
    return [radial(percent) for percent in ISTA_NET] + [
        lines(sampler, acceleration, 8) for sampler in ("random", "equispaced-fraction") for acceleration in (4, 8)
    ]


def noise_only(setup: Setup, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, CartesianMRI]:
    """Return k-space of no object at all, unit noise where the mask samples, and the operator with its true maps."""
    operator = setup.operator(shape, generator)
    drawn = torch.randn((1, *operator.data_shape, 2), generator=generator)
    return torch.view_as_complex(drawn) * operator.mask, operator


def known(y: Tensor, mask: Tensor) -> tuple[Tensor, CartesianMRI]:
    """Return k-space (1, coils, H, W) and the operator as a reconstruction knows it: ESPIRiT maps of its own lines."""
    built = slice_operator(y[0], CartesianAcquisition(mask=mask), 0)
    return built.measurements, built.operator


def plane_of_truth(truth: GroundTruth) -> Plane:
    """Return the magnitude of a slice at the size that is judged; smaller ones stay as they are."""
    image = truth.image.abs()
    return (centred(image, SIZE) if min(image.shape) >= SIZE else image).numpy().astype(np.float64)


def case(truth: GroundTruth, setup: Setup, seed: int) -> Case:
    """Measure a slice."""
    plane = torch.from_numpy(plane_of_truth(truth))
    return measured_case(plane, setup, seed, str(truth.source), truth.subject or truth.source.volume)


def measured_case(plane: Tensor, setup: Setup, seed: int, name: str, subject: str) -> Case:
    """Measure a magnitude (H, W) of somebody; the reconstruction estimates the coil maps."""
    generator = torch.Generator().manual_seed(seed)
    shape = (plane.shape[0], plane.shape[1])
    image = torch.polar(plane.float(), smooth_phase(shape, generator))
    operator = setup.operator(shape, generator)
    y = simulate(image[None], operator, noise=NOISE, generator=generator).measurements
    if setup.coils > 1:
        y, operator = known(y, operator.mask[0] > 0)
    return Case(name, subject, y, operator, plane.numpy())


def cases(slices: Sequence[GroundTruth], setup: Setup, first_seed: int) -> list[Case]:
    """Measure slices, each with a phase, a mask and noise of its own."""
    return [case(truth, setup, first_seed + index) for index, truth in enumerate(slices)]


def tuning_cases(slices: Sequence[GroundTruth], setup: Setup) -> Callable[[], list[Case]]:
    """Return how to measure slices to choose λ on, with other seeds."""
    return partial(cases, slices, setup, 10_000)


def works(chosen: Iterable[Setup], held_back: Sequence[GroundTruth], tuning: Sequence[GroundTruth]) -> Iterable[Work]:
    """Yield the work."""
    for setup in chosen:
        yield Work(
            f"simulated MRI, {setup.name}",
            "mri",
            partial(cases, held_back, setup, 0),
            setup.name,
            tuning_cases(tuning, setup),
            setup.published,
        )
