"""Every benchmark runs: the quick form of each script, and the results that are kept with them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
HELPERS = {"peers", "timing"}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
RESULTS = sorted(path.name for path in (FOLDER / "results").glob("*.json"))


def check_rows(path, least=1):
    rows = json.loads(path.read_text())
    assert len(rows) >= least
    for row in rows:
        assert row.keys() == {"work", "who", "metric", "value"}
        assert all(isinstance(row[key], str) for key in ("work", "who", "metric"))
        assert math.isfinite(row["value"])
    return rows


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", "--quick", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_run(script, tmp_path):
    """Peers that are not installed are left out with a word about it."""
    if script == "ct_cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    done = run(script, "--json", tmp_path / "deeper" / "rows.json")
    assert done.returncode == 0, done.stderr
    rows = check_rows(tmp_path / "deeper" / "rows.json")
    assert any(row["who"].startswith("medrecon") for row in rows)
    assert any(row["metric"] in ("seconds", "bytes") and row["value"] > 0 for row in rows)


@pytest.mark.slow
def test_own_kspace(tmp_path):
    """A textured disc seen by three coils: every method must beat zero-filling."""
    y, x = np.mgrid[-1:1:64j, -1:1:128j]
    disc = (x**2 + y**2 < 0.6) * (1 + 0.5 * np.cos(9 * x) * np.cos(7 * y))
    coils = np.stack([disc * np.exp(-((x - a) ** 2 + (y - b) ** 2)) for a, b in ((1, 0), (-1, 0), (0, 1))])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    np.save(tmp_path / "disc.npy", kspace.astype(np.complex64))
    done = run("mri_reconstruction", "--kspace", tmp_path / "disc.npy", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    psnr = {row["who"]: row["value"] for row in check_rows(tmp_path / "rows.json") if row["metric"] == "psnr"}
    for method in ("cg-sense", "tv", "l1-wavelet"):
        assert psnr[f"medrecon {method}, best λ"] > psnr["zero-filled RSS"] + 1


@pytest.mark.slow
def test_kspace_of_the_wrong_shape_is_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones((8, 8), np.complex64))
    done = run("mri_reconstruction", "--kspace", tmp_path / "flat.npy")
    assert done.returncode != 0
    assert "expected k-space (coils, H, W), got shape (8, 8)" in done.stderr


@pytest.mark.parametrize("name", RESULTS)
def test_kept_results_are_rows(name):
    check_rows(FOLDER / "results" / name, least=10)


def test_readme_names_every_benchmark():
    text = (FOLDER / "README.md").read_text()
    assert SCRIPTS
    for script in SCRIPTS:
        assert f"{script}.py" in text
