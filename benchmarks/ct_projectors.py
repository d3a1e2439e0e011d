"""X-ray projectors against the peers' equivalents on the CPU, one thread.

    OMP_NUM_THREADS=1 python benchmarks/ct_projectors.py [--quick] [--json FILE]

Seconds are medians of interleaved calls; "error" compares the sinogram of an anti-aliased phantom of
ellipses with its analytic line integrals; "dot" is |<A x, y> - <x, A^T y>| / (‖A x‖ ‖y‖) on random x in the
inscribed disc and random y; bytes are what a process needs on top of its imports to build the
operator and apply both directions once. Parallel beams: N bins of one pixel over half a turn. Fan:
source and detector at 2 N from the axis, pitch 2, flat, full turn.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import peer
from timing import interleaved, report, save

ELLIPSES = (  # value, half axes, centre (shares of the half width), angle
    (1.0, 0.85, 0.70, 0.0, 0.0, 0.3),
    (-0.6, 0.75, 0.60, 0.02, -0.01, 0.3),
    (0.3, 0.20, 0.35, 0.25, 0.10, -0.4),
    (-0.2, 0.15, 0.30, -0.30, 0.05, 0.5),
    (0.5, 0.05, 0.05, 0.10, -0.40, 0.0),
    (0.4, 0.03, 0.06, -0.15, -0.35, 1.0),
)


@dataclass(frozen=True)
class Work:
    """One geometry."""

    beam: str
    size: int
    views: int
    bins: int
    repeats: int

    @property
    def name(self) -> str:
        """Words for the table."""
        return f"{self.beam} {self.size}² x {self.views} views, {self.bins} bins"

    @property
    def angles(self) -> np.ndarray:
        """Radians."""
        return np.arange(self.views) * ((math.pi if self.beam == "parallel" else 2 * math.pi) / self.views)


@dataclass(frozen=True)
class Candidate:
    """Somebody's projector: images (N, N) to sinograms (views, bins) and back, NumPy in the peer's own form."""

    forward: Callable[[], Any]
    adjoint: Callable[[], Any]
    apply: Callable[[np.ndarray], np.ndarray]
    apply_adjoint: Callable[[np.ndarray], np.ndarray]


def phantom(size: int, oversampling: int = 8) -> np.ndarray:
    """Return the ellipses averaged over every pixel."""
    fine = (np.arange(size * oversampling) + 0.5) / (size * oversampling) * 2 - 1
    x, y = np.meshgrid(fine, -fine)
    image = np.zeros_like(x)
    for value, a, b, x0, y0, angle in ELLIPSES:
        c, s = math.cos(angle), math.sin(angle)
        along, across = (x - x0) * c + (y - y0) * s, (y - y0) * c - (x - x0) * s
        image += value * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return image.reshape(size, oversampling, size, oversampling).mean((1, 3)).astype(np.float32)


def line_integrals(work: Work) -> np.ndarray:
    """Return the analytic integrals through the ellipses along every ray, in pixels."""
    angles, half = work.angles[:, None], work.size / 2
    if work.beam == "parallel":
        normal, distance = angles, (np.arange(work.bins) - (work.bins - 1) / 2) / half
    else:
        u = (np.arange(work.bins) - (work.bins - 1) / 2) * 2 / half
        gamma = np.arctan2(u, 8.0)
        normal, distance = angles - gamma, 4.0 * np.sin(gamma)
    total = np.zeros((work.views, work.bins))
    for value, a, b, x0, y0, angle in ELLIPSES:
        d = distance - x0 * np.cos(normal) - y0 * np.sin(normal)
        width = (a * np.cos(normal - angle)) ** 2 + (b * np.sin(normal - angle)) ** 2
        total += value * 2 * a * b * np.sqrt(np.maximum(width - d**2, 0)) / width
    return total * half


def with_medrecon(work: Work, image: np.ndarray, sinogram: np.ndarray) -> Candidate:
    """Ours, through the public operator."""
    from medrecon import operators

    shape, angles = (work.size, work.size), torch.from_numpy(work.angles)
    operator: Any
    if work.beam == "parallel":
        operator = operators.ParallelBeam2D(shape, angles, detector_count=work.bins)
    else:
        orbit = 2.0 * work.size
        operator = operators.FanBeam2D(
            shape,
            angles,
            source_origin=orbit,
            source_detector=2 * orbit,
            detector_count=work.bins,
            detector_pitch=2.0,
        )
    x, y = torch.from_numpy(image)[None, None], torch.from_numpy(sinogram)[None, None]
    return Candidate(
        lambda: operator(x),
        lambda: operator.adjoint(y),
        lambda x: operator(torch.from_numpy(x)[None, None])[0, 0].numpy(),
        lambda y: operator.adjoint(torch.from_numpy(y)[None, None])[0, 0].numpy(),
    )


def with_astra(work: Work, image: np.ndarray, sinogram: np.ndarray, model: str) -> Candidate | None:
    """ASTRA's CPU projectors; data live in ASTRA's own memory, so nothing but the projection is timed."""
    astra = peer("astra")
    if astra is None:
        return None
    volume = astra.create_vol_geom(work.size, work.size)
    if work.beam == "parallel":
        geometry = astra.create_proj_geom("parallel", 1.0, work.bins, work.angles)
    else:
        orbit = 2.0 * work.size
        geometry = astra.create_proj_geom("fanflat", 2.0, work.bins, work.angles, orbit, orbit)
    projector = astra.create_projector(model, geometry, volume)

    def algorithm(kind: str, x: int, y: int) -> Callable[[], None]:
        config = astra.astra_dict(kind)
        config["ProjectorId"], config["ProjectionDataId"] = projector, y
        config["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = x
        number = astra.algorithm.create(config)
        return lambda: astra.algorithm.run(number)

    x, y = astra.data2d.create("-vol", volume, image), astra.data2d.create("-sino", geometry, sinogram)
    x_out, y_out = astra.data2d.create("-vol", volume, 0), astra.data2d.create("-sino", geometry, 0)
    forward, adjoint = algorithm("FP", x, y_out), algorithm("BP", x_out, y)

    def apply(image: np.ndarray) -> np.ndarray:
        astra.data2d.store(x, image)
        forward()
        return astra.data2d.get(y_out)

    def apply_adjoint(sinogram: np.ndarray) -> np.ndarray:
        astra.data2d.store(y, sinogram)
        adjoint()
        return astra.data2d.get(x_out)

    return Candidate(forward, adjoint, apply, apply_adjoint)


def with_skimage(work: Work, image: np.ndarray, sinogram: np.ndarray) -> Candidate | None:
    """Return scikit-image's radon and iradon without filter (times 2 A / π: its scale)."""
    if work.beam != "parallel" or peer("skimage") is None:
        return None
    from skimage.transform import iradon, radon

    degrees = np.rad2deg(work.angles)
    scale = 2 * work.views / math.pi

    def apply(x: np.ndarray) -> np.ndarray:
        return radon(x, degrees, circle=True).T

    def apply_adjoint(y: np.ndarray) -> np.ndarray:
        return iradon(np.ascontiguousarray(y.T), degrees, filter_name=None, circle=True, output_size=work.size) * scale

    disc = image * in_disc(work.size)
    return Candidate(lambda: apply(disc), lambda: apply_adjoint(sinogram), apply, apply_adjoint)


def with_deepinv(work: Work, image: np.ndarray, sinogram: np.ndarray, *, parallel: bool = False) -> Candidate | None:
    """Return deepinv's Tomography (parallel beams), not normalised, on its default adjoint."""
    if work.beam != "parallel":
        return None
    deepinv = peer("deepinv")
    if deepinv is None:
        return None
    physics = deepinv.physics.Tomography(
        angles=torch.from_numpy(np.rad2deg(work.angles)).float(),
        img_width=work.size,
        circle=True,
        normalize=False,
        parallel_computation=parallel,
    )
    x, y = torch.from_numpy(image)[None, None], torch.from_numpy(sinogram.T.copy())[None, None]
    return Candidate(
        lambda: physics.A(x),
        lambda: physics.A_adjoint(y),
        lambda x: physics.A(torch.from_numpy(x)[None, None])[0, 0].numpy().T,
        lambda y: physics.A_adjoint(torch.from_numpy(y.T.copy())[None, None])[0, 0].numpy(),
    )


BUILDERS: dict[str, Callable[[Work, np.ndarray, np.ndarray], Candidate | None]] = {
    "medrecon": with_medrecon,
    "ASTRA linear": lambda w, x, y: with_astra(w, x, y, "linear") if w.beam == "parallel" else None,
    "ASTRA line_fanflat": lambda w, x, y: with_astra(w, x, y, "line_fanflat") if w.beam == "fan" else None,
    "scikit-image": with_skimage,
    "deepinv, view by view": with_deepinv,
    "deepinv, all views at once": lambda w, x, y: with_deepinv(w, x, y, parallel=True),
}


def in_disc(size: int) -> np.ndarray:
    """Return the pixels within the disc that every view sees."""
    axis = np.arange(size) - (size - 1) / 2
    return (axis[:, None] ** 2 + axis**2 < (size / 2 - 2) ** 2).astype(np.float32)


def random_pair(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Return an image in the disc and a sinogram."""
    generator = np.random.default_rng(0)
    image = generator.standard_normal((work.size, work.size), dtype=np.float32) * in_disc(work.size)
    return image, generator.standard_normal((work.views, work.bins), dtype=np.float32)


def check(work: Work, found: dict[str, Candidate]) -> list[dict[str, Any]]:
    """Print and return error and adjointness of everybody."""
    rows = []
    image, sinogram = random_pair(work)
    truth, smooth = line_integrals(work), phantom(work.size)
    for who, candidate in found.items():
        error = float(np.linalg.norm(candidate.apply(smooth) - truth) / np.linalg.norm(truth))
        forward, back = candidate.apply(image).astype(float), candidate.apply_adjoint(sinogram).astype(float)
        gap = abs((forward * sinogram).sum() - (image * back).sum())
        dot = float(gap / (np.linalg.norm(forward) * np.linalg.norm(sinogram)))
        print(f"  {who:36} error {error:.5f}   dot {dot:.1e}")
        rows += [{"work": work.name, "who": who, "metric": m, "value": v} for m, v in (("error", error), ("dot", dot))]
    return rows


def memory(work: Work, who: str) -> int | None:
    """Return the peak of a process of its own, less what it had after its imports; None where Linux does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    job = json.dumps([work.beam, work.size, work.views, work.bins, who])
    done = subprocess.run([sys.executable, __file__, "--memory", job], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure_memory(job: str) -> None:
    """Build one candidate for a tiny problem (imports, compilation), then for the real one."""
    beam, size, views, bins, who = json.loads(job)
    for one in (Work(beam, 32, 8, 48 if beam == "fan" else 32, 1), Work(beam, size, views, bins, 1)):
        image, sinogram = random_pair(one)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = peak()
        candidate = BUILDERS[who](one, image, sinogram)
        if candidate is not None:
            candidate.forward()
            candidate.adjoint()
    print(peak() - before)


def peak() -> int:
    """Return the largest resident size of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small problems and few repeats, to see that it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        measure_memory(options.memory)
        return
    works = [
        Work("parallel", 256, 60, 256, 9),
        Work("parallel", 256, 180, 256, 9),
        Work("parallel", 512, 64, 512, 7),
        Work("parallel", 512, 720, 512, 3),
        Work("fan", 256, 180, 400, 9),
        Work("fan", 512, 64, 800, 7),
        Work("fan", 512, 720, 800, 3),
    ]
    if options.quick:
        works = [Work("parallel", 64, 20, 64, 3), Work("fan", 64, 20, 100, 3)]
    rows: list[dict[str, Any]] = []
    for work in works:
        pair = random_pair(work)
        found = {who: built for who, build in BUILDERS.items() if (built := build(work, *pair)) is not None}
        print(f"\n{work.name}")
        with torch.no_grad():
            rows += check(work, found)
            for what in ("forward", "adjoint"):
                calls = {who: getattr(candidate, what) for who, candidate in found.items()}
                rows += report(f"{what}, {work.name}", interleaved(calls, repeats=work.repeats), "medrecon")
        names = list(found)
        del found
        for who in names:
            used = memory(work, who)
            if used is not None:
                rows.append({"work": work.name, "who": who, "metric": "bytes", "value": used})
                print(f"  {who:36} {used / 2**20:8.1f} MiB")
    save(rows, options.json)


if __name__ == "__main__":
    main()
