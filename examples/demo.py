"""From one real MR image to a reconstruction that can be looked at: ``python examples/demo.py FOLDER``.

Simulates an 8-coil scan at four-fold undersampling from an abdominal MR slice that comes with pydicom,
reconstructs it with the commands a user would type, and writes NIfTI, DICOM and a picture.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from pydicom.data import get_testdata_file

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
    rows = []
    for method, suffix in (("rss", ".nii.gz"), ("cg-sense", ".nii.gz"), ("auto", ".nii.gz"), ("auto", ".dcm")):
        target = str(folder / f"{'reconstruction' if method == 'auto' else method}{suffix}")
        record = json.loads(run("reconstruct", scan, "-m", method, "-o", target, "--overwrite", "--json", "-q"))
        if suffix == ".dcm":
            continue
        scores = json.loads(run("evaluate", target, "--reference", scan, "--json"))
        residual = f"{record['residual']['mean']:.4f}" if record["residual"] else "none (not linear)"
        rows.append((record["method"], scores["psnr"], scores["ssim"], residual))
    picture(folder)
    print("\nmethod        PSNR (dB)   SSIM    residual ‖Ax−y‖/‖y‖")
    for name, psnr, ssim, residual in rows:
        print(f"{name:12}  {psnr:8.2f}  {ssim:6.3f}    {residual}")
    print(f"\nwritten to {folder}/: reconstruction.nii.gz, reconstruction.dcm, comparison.png (look at it)")


def picture(folder: Path) -> None:
    """Put zero-filled, reconstruction, truth and error side by side."""
    from medrecon.io import load_image, read_scan
    from medrecon.io.image import Image
    from medrecon.io.writers.png import contact_sheet

    scan = read_scan(folder / "scan.h5")
    result = load_image(folder / "reconstruction.nii.gz")
    if scan.reference is None:
        raise SystemExit("scan.h5 has lost its reference")
    truth = Image(scan.reference[0].numpy()[None], result.geometry, "MR")
    images = {"zero-filled": load_image(folder / "rss.nii.gz"), "reconstruction": result, "truth": truth}
    contact_sheet(images, folder / "comparison.png", difference=("reconstruction", "truth"), overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
