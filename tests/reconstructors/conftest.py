"""Small synthetic acquisitions, and BART where it is installed."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medrecon.operators import CartesianMRI


def _phantom(height, width):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    image = torch.zeros(height, width)
    for value, cy, cx, ry, rx in (
        (1.0, 0, 0, 0.85, 0.7),
        (-0.6, 0, 0, 0.78, 0.62),
        (0.3, -0.3, 0.2, 0.2, 0.15),
        (0.5, 0.35, -0.2, 0.25, 0.2),
        (-0.2, 0.1, 0.3, 0.12, 0.12),
    ):
        image += value * (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1)
    return torch.polar(image.clamp_min(0), 0.8 * torch.sin(2 * y) + 0.5 * x)


def _coil_maps(height, width, coils):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    angles = torch.arange(coils) * (2 * torch.pi / coils)
    distance = torch.stack([torch.hypot(y - 1.5 * a.sin(), x - 1.5 * a.cos()) for a in angles])
    phase = torch.stack([torch.atan2(y - 1.5 * a.sin(), x - 1.5 * a.cos()) for a in angles])
    maps = torch.polar(1 / distance, phase)
    return maps / maps.abs().square().sum(0).sqrt()


def _line_mask(width, step=3, centre=8):
    mask = torch.zeros(width, dtype=torch.bool)
    mask[::step] = True
    mask[(width - centre) // 2 : (width + centre) // 2] = True
    return mask


def _write_cfl(path, array):
    dims = [*array.shape, *[1] * (16 - array.ndim)]
    Path(f"{path}.hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
    np.asarray(array, np.complex64).ravel(order="F").tofile(f"{path}.cfl")


def _read_cfl(path):
    dims = [int(value) for value in Path(f"{path}.hdr").read_text(encoding="ascii").splitlines()[1].split()]
    return np.fromfile(f"{path}.cfl", np.complex64).reshape(dims, order="F")


@pytest.fixture(scope="session")
def make():
    """Builders: ``phantom(h, w)``, ``coil_maps(h, w, coils)``, ``line_mask(w)``."""
    return SimpleNamespace(phantom=_phantom, coil_maps=_coil_maps, line_mask=_line_mask)


@pytest.fixture(scope="session")
def brain():
    """An undersampled, noisy four-coil acquisition of a phantom, 64 x 48."""
    maps, image = _coil_maps(64, 48, 4), _phantom(64, 48)[None, None]
    operator = CartesianMRI(_line_mask(48), maps)
    noise = torch.randn(1, 4, 64, 48, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    data = operator(image) + 0.01 * operator.mask * noise
    return SimpleNamespace(operator=operator, data=data, image=image, maps=maps)


def _pics(folder, kspace, maps, *options):
    """Run ``bart pics`` on k-space (coils, H, W) and maps (coils, H, W); return the image (H, W)."""
    _write_cfl(folder / "k", np.asarray(kspace).transpose(1, 2, 0)[:, :, None])
    _write_cfl(folder / "m", np.asarray(maps).transpose(1, 2, 0)[:, :, None])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [shutil.which("bart"), "pics", *map(str, options), "k", "m", "o"],
        cwd=folder,
        env=env,
        check=True,
        capture_output=True,
    )
    return _read_cfl(folder / "o").squeeze()


@pytest.fixture
def pics(tmp_path):
    """``pics(kspace, maps, *options)``: BART's reconstruction, the oracle."""
    if shutil.which("bart") is None:
        pytest.skip("the command bart is not installed")
    return lambda kspace, maps, *options: _pics(tmp_path, kspace, maps, *options)
