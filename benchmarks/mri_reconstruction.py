"""Our classical reconstructors against BART's pics and sigpy's apps: quality and time, one thread.

    OMP_NUM_THREADS=1 python benchmarks/mri_reconstruction.py [--quick] [--json FILE] [--kspace FILE.npy]

Everybody gets the same undersampled k-space and the same coil maps (``bart ecalib -m1`` where BART is
installed, else our ESPIRiT) and is shown at its best λ of a grid; ours also at the default λ, which
the others do not have. Without --kspace the scan is simulated from the real abdominal MR slice that
comes with pydicom: a smooth random phase, 8 coils, 1 % noise, the recipe mri-cartesian-4x. With
--kspace, fully sampled k-space (coils, H, W), centred, is undersampled 4x with 8 % calibration lines
and compared with the root sum of squares of all of it.

PSNR, SSIM and NMSE are those of ``medrecon.metrics``, of magnitudes. Every magnitude, the zero-filled
one too, is first scaled to the reference by least squares, because programs scale their output
differently. Seconds are processor time of one solve, maps and operator given; BART's include the start
of its process and the reading and writing of files, shown as a row of its own (two iterations of CG).
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import peer
from timing import report, save
from torch import Tensor

from medrecon.io.readers.cfl import open_cfl, write_cfl
from medrecon.metrics import evaluate_volume
from medrecon.operators import CartesianMRI, intensity_scale
from medrecon.operators.coils import espirit, find_calibration_region
from medrecon.operators.fourier import centred_fft, centred_ifft
from medrecon.operators.recipes import load_recipe
from medrecon.operators.samplers.registry import make_sampler
from medrecon.reconstructors import make_method
from medrecon.simulation import simulate, smooth_phase

Image = NDArray[Any]
Solve = Callable[[float], Image]

ENERGY = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SPARSE = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)
QUICK = 5  # iterations
OURS = "medrecon tv"


@dataclass(frozen=True)
class Scan:
    """Undersampled k-space (coils, H, W), its mask, coil maps and the magnitude to be found."""

    work: str
    kspace: Tensor
    mask: Tensor
    maps: Tensor
    reference: Image


@dataclass(frozen=True)
class Method:
    """A solver as a function of λ, the λ to try, and the λ it takes unasked, if it has one."""

    solve: Solve
    grid: tuple[float, ...]
    default: float | None = None


def coarse_step(width: int) -> int:
    """Return the step through the pixels that leaves the quick run at least 128 columns, so 10 for calibration."""
    return max(1, width // 128)


def abdomen(*, quick: bool) -> tuple[Tensor, Tensor, Image, str]:
    """Simulate k-space of the MR slice that comes with pydicom; return it with mask, truth and description."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    pixels = dcmread(get_testdata_file("examples_overlay.dcm", download=False)).pixel_array.astype(np.float32)
    step = coarse_step(pixels.shape[-1]) if quick else 1
    truth = torch.from_numpy(pixels[::step, ::step].copy())[None]
    generator = torch.Generator().manual_seed(0)
    phase = smooth_phase((truth.shape[-2], truth.shape[-1]), generator)
    recipe = load_recipe("mri-cartesian-4x")
    measured = simulate(torch.polar(truth, phase[None]), recipe, noise=0.01, generator=generator)
    mask = measured.operator.tensors()["mask"][0] > 0
    return measured.measurements[0], mask, truth[0].numpy(), "abdomen, simulated"


def from_file(path: Path, *, quick: bool) -> tuple[Tensor, Tensor, Image, str]:
    """Undersample fully sampled k-space; the reference is the root sum of squares of all of it."""
    full = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.complex64))
    if full.ndim != 3:
        raise SystemExit(f"{path}: expected k-space (coils, H, W), got shape {tuple(full.shape)}")
    if quick:
        step = coarse_step(full.shape[-1])
        full = centred_fft(centred_ifft(full)[..., ::step, ::step])
    reference = centred_ifft(full).abs().square().sum(0).sqrt().numpy()
    sampler = make_sampler("equispaced", {"acceleration": 4, "center_fraction": 0.08})
    height, width = full.shape[-2:]
    mask = sampler.draw((height, width), torch.Generator().manual_seed(0)) > 0
    return full * mask, mask, reference, path.stem


class Bart:
    """BART in a folder of its own, one thread."""

    def __init__(self, folder: Path, kspace: Tensor) -> None:
        self._folder = folder
        self._put("kspace", kspace)

    def _put(self, name: str, coils: Tensor) -> None:
        write_cfl(self._folder / name, coils.numpy().transpose(1, 2, 0)[:, :, None, :])

    def run(self, *arguments: object) -> None:
        """Run one of BART's tools; its own message if it fails."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = ["bart", *map(str, arguments)]
        done = subprocess.run(command, cwd=self._folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr or done.stdout}")

    def estimate_maps(self) -> Tensor:
        """Return ESPIRiT maps (coils, H, W)."""
        self.run("ecalib", "-m1", "kspace", "maps")
        height, width, _, coils = open_cfl(self._folder / "maps").shape[:4]
        maps = np.array(open_cfl(self._folder / "maps")).reshape(height, width, coils)
        return torch.from_numpy(np.ascontiguousarray(maps.transpose(2, 0, 1)))

    def pics(self, iterations: int, regularizer: str) -> Solve:
        """Return a solver; in ``regularizer`` the text {} stands for λ. With -S the image is in units of the data."""

        def solve(weight: float) -> Image:
            words = regularizer.format(weight).split()
            self.run("pics", "-S", "-i", iterations, *words, "kspace", "maps", "image")
            return np.array(open_cfl(self._folder / "image")).squeeze()

        return solve


def of_medrecon(scan: Scan, *, quick: bool) -> dict[str, Method]:
    """Return our reconstructors."""
    operator, y = CartesianMRI(scan.mask, scan.maps), scan.kspace[None]

    def method(name: str, grid: tuple[float, ...]) -> Method:
        settings: dict[str, Any] = {"max_iter": QUICK} if quick else {}

        def solve(weight: float) -> Image:
            return make_method(name, {**settings, "regularization": weight})(y, operator)[0, 0].numpy()

        default = make_method(name).settings(operator)["regularization"]
        return Method(solve, grid, float(default or 0))

    return {
        "medrecon cg-sense": method("cg-sense", ENERGY),
        OURS: method("tv", SPARSE),
        "medrecon l1-wavelet": method("l1-wavelet", SPARSE),
    }


def of_bart(bart: Bart | None, *, quick: bool) -> dict[str, Method]:
    """Return BART's pics; -R T is total variation by ADMM (-u is its ρ, 0.5 by default), -R W the wavelets by FISTA."""
    if bart is None:
        return {}
    variants = [("l2", "-l2 -r {}", ENERGY, (30,)), ("l1-wavelet", "-R W:3:0:{}", SPARSE, (30, 50, 100))]
    variants += [("tv", "-R T:3:0:{}", SPARSE, (50, 100, 300))]
    variants += [(f"tv, -u {rho}", f"-u {rho} -R T:3:0:{{}}", SPARSE, (50, 100)) for rho in ("0.01", "0.001")]
    return {
        f"BART {name}, {count} it.": Method(bart.pics(count, words), grid)
        for name, words, grid, counts in variants
        for count in ((QUICK,) if quick else counts)
    }


def of_sigpy(scan: Scan, *, quick: bool) -> dict[str, Method]:
    """Return sigpy's apps. Their λ is in units of the data, so the data are first divided by our intensity scale."""
    apps = peer("sigpy.mri.app")
    if apps is None:
        return {}
    scale = float(intensity_scale(CartesianMRI(scan.mask, scan.maps), scan.kspace[None]))
    y, maps = (scan.kspace / scale).numpy(), scan.maps.numpy()

    def method(app: Any, count: int) -> Solve:
        return lambda weight: app(y, maps, weight, max_iter=count, show_pbar=False).run()

    variants = (
        ("SenseRecon", ENERGY, 30),
        ("TotalVariationRecon", SPARSE, 100),
        ("L1WaveletRecon", SPARSE, 100),
    )
    counted = [(name, grid, QUICK if quick else count) for name, grid, count in variants]
    return {
        f"sigpy {name}, {count} it.": Method(method(getattr(apps, name), count), grid) for name, grid, count in counted
    }


def scores(image: Image, reference: Image) -> dict[str, float]:
    """Return PSNR, SSIM and NMSE of a magnitude that is scaled to the reference by least squares."""
    magnitude = np.abs(image).astype(np.float64)
    truth = reference.astype(np.float64)
    magnitude *= (magnitude * truth).sum() / max(float(np.square(magnitude).sum()), 1e-300)
    return evaluate_volume(truth[None], magnitude[None])


def best(method: Method, reference: Image, *, quick: bool) -> tuple[float, dict[str, float]]:
    """Return the λ of the highest PSNR, and its scores."""
    grid = method.grid[2:4] if quick else method.grid
    found = [(weight, scores(method.solve(weight), reference)) for weight in grid]
    return max(found, key=lambda pair: pair[1]["psnr"])


def cpu_seconds() -> float:
    """Return the processor time that this process and its finished children have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def in_turns(candidates: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Return the median seconds of each, like ``timing.interleaved`` but with child processes (and warm already)."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = cpu_seconds()
            run()
            seconds[name].append(cpu_seconds() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def check_same_system(methods: Mapping[str, Method], weight: float = 0.01) -> None:
    """Stop unless everybody's least squares agree: same k-space, maps, Fourier convention and meaning of λ."""
    names = [name for name in methods if any(word in name for word in ("cg-sense", "l2", "SenseRecon"))]
    images = {name: np.abs(methods[name].solve(weight)) for name in names}
    ours = images[names[0]]
    for name, image in list(images.items())[1:]:
        fitted = image * (image * ours).sum() / np.square(image).sum()
        gap = float(np.linalg.norm(fitted - ours) / np.linalg.norm(ours))
        print(f"  {name:36} least squares differ from ours by {gap:.1e}")
        if gap > 1e-2:
            raise SystemExit(f"{name} solves another problem: relative difference {gap:.1e}")


def compare(scan: Scan, bart: Bart | None, *, quick: bool) -> list[dict[str, Any]]:
    """Run everything on one scan; print the tables and return the rows."""
    methods = of_medrecon(scan, quick=quick) | of_bart(bart, quick=quick) | of_sigpy(scan, quick=quick)
    print(f"\n{scan.work}\n  data range of the metrics: {scan.reference.max():.6g}")
    check_same_system(methods)
    zero_filled = centred_ifft(scan.kspace).abs().square().sum(0).sqrt().numpy()
    quality: dict[str, tuple[float | None, dict[str, float]]] = {
        "zero-filled RSS": (None, scores(zero_filled, scan.reference))
    }
    candidates: dict[str, Callable[[], Any]] = {}
    for name, method in methods.items():
        weight, found = best(method, scan.reference, quick=quick)
        if weight in (method.grid[0], method.grid[-1]) and not quick:
            print(f"  {name}: the best λ is the end of the grid, {weight:g}; a wider grid may do better")
        quality[f"{name}, best λ"] = weight, found
        candidates[name] = lambda method=method, weight=weight: method.solve(weight)  # type: ignore[misc]
        if method.default is not None:
            quality[f"{name}, default λ"] = method.default, scores(method.solve(method.default), scan.reference)
    rows = []
    print(f"\n  {'':48} {'λ':>8} {'PSNR (dB)':>9} {'SSIM':>7} {'NMSE':>9}")
    for name, (chosen, found) in quality.items():
        weight_text = "" if chosen is None else f"{chosen:g}"
        print(f"  {name:48} {weight_text:>8} {found['psnr']:9.2f} {found['ssim']:7.4f} {found['nmse']:9.6f}")
        figures = found if chosen is None else {"lambda": chosen, **found}
        rows += [{"work": scan.work, "who": name, "metric": key, "value": value} for key, value in figures.items()]
    if bart is not None:
        candidates["BART l2, 2 it.: start and files"] = lambda: bart.pics(2, "-l2 -r {}")(0.01)
    seconds = in_turns(candidates, repeats=1 if quick else 3)
    return rows + report(f"solve seconds at the best λ: {scan.work}", seconds, OURS)


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small image and few iterations, to see that it runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kspace", type=Path, help="fully sampled, centred k-space (coils, H, W), .npy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    kspace, mask, reference, name = from_file(options.kspace, quick=quick) if options.kspace else abdomen(quick=quick)
    coils, height, width = kspace.shape
    with tempfile.TemporaryDirectory(prefix="bart-") as folder:
        if shutil.which("bart") is None:
            print("bart is left out: no such program")
            bart = None
            region = find_calibration_region(kspace, mask, min_size=8)
            maps = espirit(region.extract(kspace), (height, width), kernel_size=min(6, min(region.shape) // 2)).maps[0]
        else:
            bart = Bart(Path(folder), kspace)
            maps = bart.estimate_maps()
        rate = mask.numel() / int(mask.sum())
        source = "maps of BART" if bart is not None else "maps of medrecon"
        work = f"{name}, {coils} coils, {height} x {width}, R = {rate:.2f}, {source}"
        rows = compare(Scan(work, kspace, mask, maps, reference), bart, quick=quick)
    save(rows, options.json)


if __name__ == "__main__":
    main()
