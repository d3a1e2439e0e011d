"""Trained models against classical methods: image quality, lesions, noise, and where they fail, in one run.

    OMP_NUM_THREADS=1 python benchmarks/quality.py --data ../shared/data --mri FOLDER --ct FOLDER --cs FOLDER
        [--slices N] [--only WORDS ...] [--pictures FOLDER] [--json FILE] [--quick]

A domain takes one checkpoint or several, trained on the same split (an IDM and a U-Net, say). Without one the model
that comes with medrecon is taken, and without that the domain is left out. ``judging/`` says how each
domain is measured.

- Judged are slices of subjects that training held back: the split is redone from the recipe in the checkpoint, by
  the code of training. Natural images are those of scikit-image, which nothing was trained on.
- λ of classical methods is the best of a grid on three slices of training subjects measured in the same way, for every
  piece of work anew, and then fixed; "!" marks an end of the grid.
- Everybody gets the same measurements, with coil maps by ESPIRiT from their own calibration lines.
- PSNR, SSIM and NMSE are those of ``medrecon.metrics``, of magnitudes (MRI) or HU + 1000 (CT), nothing rescaled;
  the data range is the maximum of the reference slice. "In object" is the PSNR of pixels above 2 % of that, for air
  fills most of a slice and is easy. Residual is ‖A x - y‖ / ‖y‖, seconds are processor time.
- ± is Student's 95 % interval over subjects, or over slices where there are fewer than three subjects.

``--quick`` needs neither data nor checkpoints: phantoms, and untrained models of the smallest size.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from judging import cs, ct, kspace, mri
from judging.case import Work, spread
from judging.held_back import Slices, only, split, training_recipe
from judging.lesions import lesion_rows
from judging.methods import BASELINE, Method, Tuner, classical, learned
from judging.noise import noise_rows
from judging.pictures import show
from judging.score import Rows, run_work
from timing import save

from medrecon.datasets import GroundTruth, Source
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.shipped import checkpoint_folder, shipped_models
from medrecon.simulation import brain_phantom, random_ellipses

DOMAINS = {"mri": 2, "ct": 1, "cs": 1}  # real channels of an image
TUNING = 3
ANATOMIES = 40
LESION_SLICES = 8
CHESTS = ("covid", "lung", "A0001")  # in the names of files


@dataclass(frozen=True)
class Task:
    """What all domains need to know."""

    data: Path
    checkpoints: Mapping[str, Sequence[Path]]
    slices: int
    pictures: Path | None
    quick: bool
    only: Sequence[str]
    json: Path | None
    tuner: Tuner = field(default_factory=Tuner)
    rows: Rows = field(default_factory=list)

    def keep(self, rows: Rows) -> None:
        """Keep rows, in the file as well: a run takes hours, and may be stopped."""
        self.rows.extend(rows)
        save(self.rows, self.json)

    def wanted(self, name: str) -> bool:
        """Whether a piece of work is asked for."""
        return not self.only or any(words in name for words in self.only)

    def run(self, works: Iterable[Work]) -> None:
        """Run pieces of work, one after the other."""
        for work in works:
            if not self.wanted(work.name):
                continue
            coils = work.domain == "mri" and work.cases[0].measurements.shape[1] > 1
            methods = classical(work.domain, coils=coils) | self.learned(work.domain)
            outcome = run_work(work, methods, self.tuner)
            self.keep(outcome.rows)
            if self.pictures is not None:
                show(self.pictures, work, methods, outcome)

    def learned(self, domain: str) -> dict[str, Method]:
        """Return the trained models of a domain."""
        return learned(self.checkpoints[domain])

    def mri(self) -> None:
        """Judge on brains: simulated, measured, with lesions, and without anything."""
        slices = self._phantoms(0.0) if self.quick else split(self.checkpoints["mri"], self.data)
        if not self.quick:
            slices = only(slices, "t1_axial")
        tuning, judged = spread(slices.training, TUNING), spread(slices.held_back, self.slices)
        self.run(mri.works(mri.setups(quick=self.quick), judged, tuning))
        if not self.quick:
            self.run(kspace.works(self.data / "mri_kspace", tuning))
        anatomies = spread(slices.training, ANATOMIES)
        if not (self.wanted("lesions") or self.wanted("noise")):
            return
        for setup in mri.setups(quick=True) if self.quick else (mri.EIGHT_COILS_4X, mri.RADIAL_25):
            known = classical("mri", coils=setup.coils > 1)
            weight = self.tuner.weight(setup.name, BASELINE, known[BASELINE], mri.tuning_cases(tuning, setup))
            methods = {BASELINE: known[BASELINE].build(weight)}
            methods |= {who: method.build() for who, method in self.learned("mri").items()}
            if self.wanted("lesions"):
                self.keep(lesion_rows(setup, spread(judged, LESION_SLICES), methods, self.pictures))
            methods = {"zero-filled": known["zero-filled"].build(), **methods}
            if self.wanted("noise"):
                self.keep(noise_rows(setup, anatomies, methods, self.pictures))

    def ct(self) -> None:
        """Judge on chests."""
        slices = self._phantoms(0.02) if self.quick else split(self.checkpoints["ct"], self.data)
        chests = slices if self.quick else only(slices, *CHESTS)
        judged = spread(chests.held_back or slices.held_back, self.slices)
        self.run(ct.works(judged, spread(chests.training or slices.training, TUNING), quick=self.quick))

    def cs(self) -> None:
        """Judge on photographs."""
        if self.quick:
            plain = [(str(truth.source), truth.image / 0.02) for truth in self._phantoms(0.02).held_back]
            self.run(cs.works(plain, plain[:1], quick=True))
            return
        for checkpoint in self.checkpoints["cs"]:
            trained = training_recipe(checkpoint, self.data).data.train or ()
            if any((self.data / cs.JUDGED).resolve().is_relative_to(path) for path in trained):
                raise SystemExit(f"{checkpoint}: was trained on {cs.JUDGED}, on which it would be judged")
        judged = cs.pictures(self.data / cs.JUDGED, self.slices)
        self.run(cs.works(judged, cs.pictures(self.data / cs.TUNING, TUNING), quick=False))

    def _phantoms(self, attenuation: float) -> Slices:
        """Return phantoms in the place of images, in 1/mm where an attenuation is given."""
        generator = torch.Generator().manual_seed(0)
        planes = (
            attenuation * random_ellipses(2, (80, 80), generator)
            if attenuation
            else brain_phantom(2, (104, 104), generator)
        )
        truths = [
            GroundTruth(plane.float(), Source(f"phantom {index}", 0), 2.0 if attenuation else 1.0)
            for index, plane in enumerate(planes)
        ]
        return Slices(truths[:1], truths[1:])


def untrained(folder: Path) -> dict[str, list[Path]]:
    """Save untrained models for a quick run."""
    torch.manual_seed(0)
    for domain, channels in DOMAINS.items():
        InvertibleDiffusionModel.from_preset("tiny", image_channels=channels).save(folder / domain)
    return {domain: [folder / domain] for domain in DOMAINS}


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the test data")
    for domain in DOMAINS:
        parser.add_argument(f"--{domain}", type=Path, nargs="+", metavar="FOLDER", help="trained models")
    parser.add_argument("--slices", type=int, default=24, help="held-back slices a piece of work at most")
    parser.add_argument("--only", nargs="+", default=(), metavar="WORDS", help="work whose name holds any of these")
    parser.add_argument("--pictures", type=Path, help="folder for PNG pictures, the failures among them")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms and untrained models, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # few calibration lines and files without a pixel size are meant here
    logging.getLogger("medrecon").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="untrained-") as scratch:
        found = untrained(Path(scratch)) if options.quick else {}
        for domain in DOMAINS:
            if given := getattr(options, domain):
                found[domain] = [checkpoint_folder(folder) for folder in given]
            elif domain not in found and domain in (shipped := shipped_models()):
                found[domain] = [shipped[domain]]
        print("data range of PSNR and SSIM: maximum of the reference slice; λ chosen on 3 slices of training subjects")
        task = Task(
            options.data.resolve(), found, options.slices, options.pictures, options.quick, options.only, options.json
        )
        for domain, judge in (("mri", task.mri), ("ct", task.ct), ("cs", task.cs)):
            if domain in found:
                judge()
            else:
                print(f"{domain} is left out: no checkpoint, give it with --{domain}")


if __name__ == "__main__":
    main()
