"""From one real MR image to a reconstruction that can be looked at: ``python examples/demo.py FOLDER``.

Simulates an 8-coil scan at four-fold undersampling from an abdominal MR slice that comes with pydicom,
reconstructs it with the commands a user would type, classically and with the trained model that comes with
medrecon, and writes NIfTI, DICOM and a picture.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from pydicom.data import get_testdata_file

from medrecon.models.shipped import shipped_models

NOISE = "0.005"


def run(*arguments: str) -> str:
    """Run one medrecon command, shown as it would be typed; return what it prints."""
    print("$ medrecon", shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "medrecon", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 (our own command)


def main(folder: Path) -> None:
    """Write everything into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    source = get_testdata_file("examples_overlay.dcm", download=False)
    scan, truth = str(folder / "scan.h5"), str(source)
    run("simulate", truth, "--operator", "mri-cartesian-4x", "--noise", NOISE, "-o", scan, "--overwrite")
    print(run("info", scan))
    choices = {method: ("-m", method) for method in ("rss", "cg-sense", "tv")}
    if "mri" in shipped_models():
        choices["idm"] = ("--checkpoint", "mri")
    rows = []
    for name, choice in choices.items():
        target = str(folder / f"{name}.nii.gz")
        record = json.loads(run("reconstruct", scan, *choice, "-o", target, "--overwrite", "--json", "-q"))
        scores = json.loads(run("evaluate", target, "--reference", scan, "--json"))
        residual = f"{record['residual']['mean']:.4f}" if record["residual"] else "none (not linear)"
        rows.append(f"{name:12}  {scores['psnr']:8.2f}  {scores['ssim']:6.3f}  {record['seconds']:6.1f}    {residual}")
    run("reconstruct", scan, "-o", str(folder / "reconstruction.dcm"), "--overwrite", "-q")  # picks the method itself
    picture(folder, list(choices))
    print("\nmethod        PSNR (dB)   SSIM  time (s)  residual ‖Ax−y‖/‖y‖")
    print("\n".join(rows))
    print(f"\nwritten to {folder}/: NIfTI of each method, reconstruction.dcm, comparison.png (look at it)")


def picture(folder: Path, methods: list[str]) -> None:
    """Put zero-filled, total variation, the trained model if there is one, truth and error side by side."""
    from medrecon.io import load_image, read_scan
    from medrecon.io.image import Image
    from medrecon.io.writers.png import contact_sheet

    scan = read_scan(folder / "scan.h5")
    if scan.reference is None:
        raise SystemExit("scan.h5 has lost its reference")
    shown = {"rss": "zero-filled", "tv": "total variation", "idm": "trained model"}
    images = {label: load_image(folder / f"{name}.nii.gz") for name, label in shown.items() if name in methods}
    best = list(images)[-1]
    images["truth"] = Image(scan.reference[0].numpy()[None], images[best].geometry, "MR")
    contact_sheet(images, folder / "comparison.png", difference=(best, "truth"), overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
