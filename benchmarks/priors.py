"""Diffusion priors beside classical and learned methods, on small MR images measured in three ways: one table.

    OMP_NUM_THREADS=1 python benchmarks/priors.py --data ../shared/data --models FOLDER ...
        [--slices N] [--draws N] [--pictures FOLDER] [--json FILE] [--quick]

The models are trained by ``mri-prior`` and ``mri-small``, on the same split, which is redone from the first of them;
judged are slices of the subjects that it held back. Complex images of 64 x 64 pixels with a smooth random phase,
without noise: Cartesian lines at 4x, 25 % block compressed sensing (real and imaginary part alike), 50 % inpainting.
λ of TV is the best of a grid on slices of training subjects. "Mean" is the mean of training images drawn to the data,
"Wiener" the linear estimate with their covariance, of images with phases: what a model has to beat.
``--quick`` takes phantoms and untrained models.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from judging.case import Case, Work, spread
from judging.methods import SPARSE, Method, Tuner, learned
from judging.pictures import show
from judging.score import run_work
from judging.small_mr import small_images, with_phase
from timing import save
from torch import Tensor

from medrecon.models import build_model
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, LinearOperator
from medrecon.operators.samplers.registry import make_sampler
from medrecon.optimization.convergence import Progress
from medrecon.reconstructors import Reconstructor
from medrecon.simulation import brain_phantom

TASKS = ("4x Cartesian lines", "25 % block CS", "50 % inpainting")
TUNING = 3
SAMPLES = 1500  # images of which the Wiener filter takes the covariance
FLOOR = 1e-3  # of the mean variance: what the covariance of so many samples leaves open


class MeanFill(Reconstructor):
    """Mean of images drawn to the data."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.mean = images.mean(0, keepdim=True)

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        del generator, progress
        return operator.project(self.mean.expand(len(measurements), *operator.image_shape), measurements)


class Wiener(Reconstructor):
    """μ + C A^H (A C A^H)^-1 (y - A μ) with mean and covariance of images, for A A^H = I."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.mean = images.mean(0, keepdim=True)
        self.deviations = (images - self.mean) / len(images) ** 0.5
        self.floor = FLOOR * float(self.deviations.abs().square().sum(0).mean())

    def _reconstruct(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        *,
        generator: torch.Generator | None,
        progress: Progress | None,
    ) -> Tensor:
        del generator, progress
        seen = operator(self.deviations).flatten(1)
        sampled = seen.abs().amax(0) > 0
        seen = seen[:, sampled]
        system = seen.T @ seen.conj() + self.floor * torch.eye(seen.shape[1], dtype=seen.dtype)
        gap = measurements - operator(self.mean)
        weights = torch.linalg.solve(system, gap.flatten(1)[:, sampled].T).T
        everywhere = torch.zeros_like(gap).flatten(1)
        everywhere[:, sampled] = weights
        filled = ((weights @ seen.conj().T) @ self.deviations.flatten(1)).reshape(-1, *operator.image_shape)
        return self.mean + filled + self.floor * operator.adjoint(everywhere.reshape(gap.shape))


@dataclass(frozen=True)
class Fixed(Method):
    """A method that is there already."""

    reconstructor: Reconstructor | None = None

    def build(self, weight: float | None = None) -> Reconstructor:
        """Return it."""
        del weight
        if self.reconstructor is None:
            raise TypeError("Fixed: needs a reconstructor")
        return self.reconstructor


def operator_of(task: str, size: int, seed: int) -> LinearOperator:
    """Draw an operator."""
    generator = torch.Generator().manual_seed(seed)
    if task == TASKS[0]:
        mask = make_sampler("random", {"acceleration": 4, "center_fraction": 0.08}).draw((size, size), generator) > 0
        return CartesianMRI(mask.expand(size, size), image_shape=(size, size))
    if task == TASKS[1]:
        shape = (1, size, size)
        return BlockCompressedSensing(shape, 0.25, block_size=16, permutation_seed=seed, dtype=torch.complex64)
    return Inpainting(torch.rand(1, size, size, generator=generator) < 0.5, dtype=torch.complex64)


def measured(task: str, planes: Sequence[tuple[str, Tensor]], first_seed: int) -> list[Case]:
    """Measure images, each with a phase and an operator of its own."""
    cases = []
    for index, (subject, plane) in enumerate(planes):
        seed = first_seed + index
        image = with_phase([plane], torch.Generator().manual_seed(seed))
        operator = operator_of(task, plane.shape[-1], seed)
        with torch.no_grad():
            cases.append(Case(f"{subject} {index}", subject, operator(image), operator, image[0, 0].abs().numpy()))
    return cases


def methods(models: Sequence[Path], training: Sequence[Tensor], draws: int) -> dict[str, Method]:
    """Return all methods by the name that the table shows."""
    generator = torch.Generator().manual_seed(0)
    several = [training[place] for place in torch.randint(len(training), (SAMPLES,), generator=generator).tolist()]
    images = with_phase(several[: max(100, min(SAMPLES, 20 * len(training)))], generator)
    found: dict[str, Method] = {
        "zero-filled": Method("adjoint"),
        "mean": Fixed("mean", reconstructor=MeanFill(images)),
        "medrecon tv": Method("tv", {}, SPARSE),
        "Wiener": Fixed("Wiener", reconstructor=Wiener(images)),
    }
    for who, method in learned(models).items():
        found[who] = method
        if method.name == "ddnm":
            found[f"{who}, mean of {draws}"] = replace(method, parameters={**method.parameters, "samples": draws})
    return found


def untrained(folder: Path) -> list[Path]:
    """Save untrained models of the smallest size."""
    torch.manual_seed(0)
    for kind in ("ddnm", "bcm", "dddm", "idm"):
        build_model(kind, image_channels=2, preset="tiny", parameters={"times": 200} if kind == "ddnm" else {}).save(
            folder / kind
        )
    return [folder / kind for kind in ("ddnm", "bcm", "dddm", "idm")]


def main() -> None:
    """Print the tables and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training's data")
    parser.add_argument("--models", type=Path, nargs="+", default=(), metavar="FOLDER", help="trained models")
    parser.add_argument("--slices", type=int, default=24, help="held-back slices at most")
    parser.add_argument("--draws", type=int, default=8, help="of DDNM's mean")
    parser.add_argument("--pictures", type=Path, help="folder for PNG pictures")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms and untrained models, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="untrained-") as scratch:
        if options.quick:
            models, options.draws = untrained(Path(scratch)), 2
            phantoms = list(brain_phantom(6, (32, 32), torch.Generator().manual_seed(0)).float())
            training, judged = phantoms[:4], [(f"phantom {n}", plane) for n, plane in enumerate(phantoms[4:5])]
        else:
            if not options.models:
                parser.error("give the folders of trained models with --models")
            models = options.models
            training, judged = small_images(models, options.data.resolve(), options.slices)
        known, rows, tuner = methods(models, training, options.draws), [], Tuner()
        tuning = [("tuning", plane) for plane in spread(training, TUNING)]
        for task in TASKS[::2] if options.quick else TASKS:
            work = Work(task, "mri", partial(measured, task, judged, 0), task, partial(measured, task, tuning, 10_000))
            outcome = run_work(work, known, tuner)
            rows += outcome.rows
            save(rows, options.json)
            if options.pictures is not None:
                show(options.pictures, work, known, outcome)


if __name__ == "__main__":
    main()
