"""Where trained models are ahead of classical methods and where not: what their scopes promise, and what lies around.

    OMP_NUM_THREADS=1 python benchmarks/scopes.py --data ../shared/data --mri FOLDER --ct FOLDER --cs FOLDER
        [--slices N] [--only WORDS ...] [--json FILE] [--quick]

TV and L1-wavelet take the λ that is best for each slice *on the test*, which nobody can do in earnest: whoever beats
the better of them may be chosen unasked. Slices and measurements are those of ``quality.py``; measured k-space is
undersampled afterwards. For CT there is TV with all rays alike, too. ``gain`` is the mean over that better one, ``least
gain`` that of the worst slice, ``behind`` how many are behind.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from judging import cs, ct, kspace, mri
from judging.case import Case, spread
from judging.held_back import only, split
from judging.score import Rows, reconstruct_case, row
from quality import CHESTS, DOMAINS, untrained
from timing import save

from medrecon.models.shipped import checkpoint_folder, shipped_models
from medrecon.operators.composition import Weighted
from medrecon.reconstructors import Reconstructor, make_method
from medrecon.reconstructors.learned import method_of_checkpoint
from medrecon.simulation import brain_phantom

GRIDS = {"mri": (0.0005, 0.001, 0.003, 0.01), "ct": (0.0003, 0.0005, 0.001, 0.002), "cs": (0.0006, 0.0017, 0.003, 0.01)}
CLASSICAL = ("tv", "l1-wavelet")
LINES = [(sampler, rate, 1) for sampler in ("random", "equispaced-fraction") for rate in (2, 3, 4, 6, 8)]
COILS = [("random", 4, 2), ("random", 3, 4), ("random", 4, 4), ("random", 6, 4), ("equispaced-fraction", 4, 4)]
COILS += [(sampler, rate, 8) for sampler in ("random", "equispaced-fraction") for rate in (3, 4, 6, 8)]
COILS += [("random", 6, 16), ("equispaced-fraction", 4, 16), ("random", 4, 32)]
POINTS = [("variable-density-points", rate, 1) for rate in (4, 6, 8, 10)]
POINTS += [("poisson-disc", rate, coils) for coils in (1, 4, 8) for rate in (4, 6, 8, 10)]
HEAD = [(sampler, rate, 4) for sampler in ("random", "equispaced-fraction") for rate in (3, 4, 6, 8)]
SINGLE = [("random", rate, 1) for rate in (3, 4, 6, 8)]
HEAD_POINTS = [("poisson-disc", rate, 4) for rate in (4, 6, 8, 10)]
SINGLE_POINTS = [("variable-density-points", rate, 1) for rate in (4, 6, 8, 10)]
BEAMS = [(60, 1e5), (30, 1e5), (90, 1e5), (180, 1e5), (60, 1e4), (30, 1e4), (180, 1e4), (60, 3e4)]
BEAMS += [(30, 1e6), (60, 1e6), (180, 1e6)]
RATIOS = (10, 15, 20, 25, 30, 40, 50)

Measured = tuple[str, Callable[[], Sequence[Case]]]


def of_mri(checkpoint: Path, data: Path, slices: int) -> Iterable[Measured]:
    """Yield brains of subjects held back, and measured k-space."""
    held_back = spread(only(split([checkpoint], data), "t1_axial").held_back, slices)
    for setup in (
        *(mri.lines(*each) for each in LINES + COILS),
        *(mri.radial(percent) for percent in (*mri.ISTA_NET, 15, 25)),
        *(mri.points(*each) for each in POINTS),
    ):
        yield f"brains, {setup.name}", partial(mri.cases, held_back, setup, 0)
    for name, (file, setups) in kspace.FILES.items():
        lines, points = (HEAD, HEAD_POINTS) if "T2 b" in name else (SINGLE, SINGLE_POINTS)
        known = [*setups, *(mri.lines(*each) for each in lines), *(mri.points(*each) for each in points)]
        measured = partial(kspace.undersampled, data / "mri_kspace" / file)
        for setup in {setup.name: setup for setup in known}.values():
            yield f"measured {name}, {setup.name}", partial(measured, setup)
            if setup.coils > 1:
                yield f"measured {name} through its maps, {setup.name}", partial(measured, setup, combined=True)
    for setup in (
        *(mri.lines("equispaced-fraction", rate, 8) for rate in (3, 6, 8)),
        *(mri.points("poisson-disc", rate, 8) for rate in (4, 8)),
    ):
        yield f"7T brain, {setup.name}", partial(kspace.of_7t, data / "mri_kspace", setup)


def of_ct(checkpoint: Path, data: Path, slices: int) -> Iterable[Measured]:
    """Yield bodies of patients held back."""
    held_back = spread(only(split([checkpoint], data), *CHESTS).held_back, slices)
    for views, counts in BEAMS:
        yield f"{views} views, {counts:.0e} photons a ray", partial(ct.cases, held_back, views, counts, 0)


def of_cs(_checkpoint: Path, data: Path, slices: int) -> Iterable[Measured]:
    """Yield photographs."""
    images = cs.pictures(data / cs.JUDGED, slices)
    for percent in RATIOS:
        yield f"block CS, {percent} %", partial(cs.cases, images, percent, 0)


def quick(domain: str) -> Iterable[Measured]:
    """Yield a phantom."""
    image = brain_phantom(1, (104, 104), torch.Generator().manual_seed(0))[0].abs().float()
    setup = mri.lines("random", 4, 1)
    if domain == "mri":
        yield "phantom", lambda: [mri.measured_case(image, setup, 0, "phantom", "phantom")]
    if domain == "cs":
        yield "phantom", lambda: [cs.case("phantom", image, 25, 0)]


def best(name: str, case: Case, grid: Sequence[float]) -> float:
    """Return the PSNR of a classical method with the best λ of a grid."""
    return max(_psnr(make_method(name, {"regularization": weight}), case) for weight in grid)


def _psnr(method: Reconstructor, case: Case) -> float:
    return reconstruct_case(method, case)[1]["psnr"]


def judge(name: str, cases: Sequence[Case], method: Reconstructor, grid: Sequence[float], *, rays: bool) -> Rows:
    """Print one line and return its rows."""
    classical = {who: [best(who, case, grid) for case in cases] for who in CLASSICAL}
    found = [reconstruct_case(method, case)[1] for case in cases]
    gains = [scores["psnr"] - max(psnrs) for scores, *psnrs in zip(found, *classical.values(), strict=True)]
    figures = {
        **{who: float(np.mean(psnrs)) for who, psnrs in classical.items()},
        "model": float(np.mean([scores["psnr"] for scores in found])),
        "model, ssim": float(np.mean([scores["ssim"] for scores in found])),
        "gain": float(np.mean(gains)),
        "least gain": min(gains),
        "behind": sum(gain < 0 for gain in gains),
        "seconds": float(np.mean([scores["seconds"] for scores in found])),
    }
    if rays:  # weights of one are weights, too: whoever sees them looks for no others
        even = [replace(case, operator=Weighted(case.operator, torch.ones_like(case.measurements))) for case in cases]
        figures["tv, all rays alike"] = float(np.mean([best("tv", case, grid) for case in even]))
    print(f"{name:58} " + "  ".join(f"{what} {value:.4g}" for what, value in figures.items()), flush=True)
    return [row(name, "medrecon", what, value) for what, value in figures.items()]


def main() -> None:
    """Go through the domains and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the test data")
    for domain in DOMAINS:
        parser.add_argument(f"--{domain}", type=Path, metavar="FOLDER", help="a trained model, or its name")
    parser.add_argument("--slices", type=int, default=4, help="slices a piece of work at most")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORDS", help="work whose name holds any of these")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms and untrained models, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("medrecon").setLevel(logging.ERROR)  # few calibration lines are meant here
    rows: Rows = []
    with tempfile.TemporaryDirectory(prefix="untrained-") as scratch:
        known = {name: paths[0] for name, paths in untrained(Path(scratch)).items()} if options.quick else {}
        given = {domain: getattr(options, domain) for domain in DOMAINS if getattr(options, domain)}
        for domain, measured in (("mri", of_mri), ("ct", of_ct), ("cs", of_cs)):
            folder = known.get(domain) or (given.get(domain) if given else shipped_models().get(domain))
            if folder is None:
                continue
            checkpoint = checkpoint_folder(folder)
            method = make_method(method_of_checkpoint(checkpoint), {"checkpoint": str(checkpoint)})
            works = quick(domain) if options.quick else measured(checkpoint, options.data.resolve(), options.slices)
            for name, cases in works:
                if not options.only or any(words in name for words in options.only):
                    rows += judge(name, cases(), method, GRIDS[domain], rays=domain == "ct")
                    save(rows, options.json)


if __name__ == "__main__":
    main()
