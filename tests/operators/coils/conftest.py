"""Simulated coils and objects, and BART as an oracle."""

import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

EXTRA = {"OMP_NUM_THREADS": "1"}


def grid(shape):
    """Coordinates of the pixels, -1 to 1 with 0 at N//2."""
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in shape)
    return y[:, None], x[None, :]


def simulated_coils(count, shape):
    """Unit-norm sensitivities: Gaussian magnitudes around a ring, smooth and different phases."""
    y, x = grid(shape)
    maps = []
    for coil in range(count):
        angle = 2 * math.pi * coil / count
        dy, dx = y - 1.3 * math.sin(angle), x - 1.3 * math.cos(angle)
        phase = 0.8 * torch.sin(1.5 * dy + coil) + 0.9 * dx * math.cos(angle) + angle
        maps.append(torch.polar(torch.exp(-(dy**2 + dx**2) / 1.6), phase))
    stacked = torch.stack(maps)
    return stacked / torch.linalg.vector_norm(stacked, dim=0)


def simulated_object(shape, *, size=1.0):
    """An ellipse with discs inside and a random smooth background phase, and its support."""
    y, x = grid(shape)
    random = torch.Generator().manual_seed(0)
    support = (y / (0.8 * size)) ** 2 + (x / (0.7 * size)) ** 2 < 1
    image = support.double()
    for _ in range(8):
        cy, cx, radius, value = torch.rand(4, generator=random, dtype=torch.float64).tolist()
        disc = (y - 0.9 * (cy - 0.5)) ** 2 + (x - 0.9 * (cx - 0.5)) ** 2 < (0.05 + 0.2 * radius) ** 2
        image = image + support * disc * (value - 0.3)
    a, b, c, d = torch.randn(4, generator=random, dtype=torch.float64).tolist()
    return torch.polar(image, 2 * a * torch.cos(3 * y + b) + 2 * c * torch.sin(3 * x + d)), support


def to_kspace(images):
    """Centred unitary Fourier transform."""
    shifted = torch.fft.ifftshift(images, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))


def add_noise(kspace, level):
    random = torch.Generator().manual_seed(1)
    return kspace + level * torch.randn(kspace.shape, dtype=kspace.dtype, generator=random)


class Simulation:
    """Maps, support, coil images and noisy k-space of one object in front of simulated coils."""

    def __init__(self, coils, shape, *, noise=0.02, dtype=torch.complex64, size=1.0, field_of_view=None):
        self.image, self.support = simulated_object(shape, size=size)
        self.maps = simulated_coils(coils, shape).to(dtype)
        images = self.maps.to(torch.complex128) * self.image
        if field_of_view is not None:  # rows beyond the field of view fold back into it
            target = (torch.arange(shape[0]) - shape[0] // 2 + field_of_view // 2) % field_of_view
            images = images.new_zeros(coils, field_of_view, shape[1]).index_add(1, target, images)
        self.coil_images = images.to(dtype)
        self.kspace = add_noise(to_kspace(images), noise).to(dtype)


@pytest.fixture(scope="session")
def simulate():
    return Simulation


@pytest.fixture(scope="session")
def kspace_of():
    return to_kspace


@pytest.fixture(scope="session")
def noisy():
    return add_noise


@pytest.fixture(scope="session")
def coils_and_object():
    return simulated_coils, simulated_object


@pytest.fixture
def ecalib(tmp_path):
    """Run BART's ecalib on (coils, H, W): maps (sets, coils, H, W)."""
    bart = shutil.which("bart")
    if bart is None:
        pytest.skip("BART is not installed; nothing to compare ESPIRiT with")

    def run(kspace, *options):
        coils, height, width = kspace.shape
        header = " ".join(str(n) for n in (height, width, 1, coils, *[1] * 12))
        (tmp_path / "k.hdr").write_text(f"# Dimensions\n{header}\n")
        kspace.permute(1, 2, 0).numpy().astype(np.complex64).ravel(order="F").tofile(tmp_path / "k.cfl")
        command = [bart, "ecalib", *options, str(tmp_path / "k"), str(tmp_path / "maps")]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | EXTRA)
        dims = [int(n) for n in (tmp_path / "maps.hdr").read_text().splitlines()[1].split()][:5]
        maps = np.fromfile(tmp_path / "maps.cfl", np.complex64).reshape(dims, order="F")[:, :, 0]
        return torch.from_numpy(maps.transpose(3, 2, 0, 1).copy())

    return run


@pytest.fixture(scope="session")
def measured():
    """Path of a measured file below the test data, or a skip."""
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    root = Path(os.environ.get("MEDRECON_TEST_DATA", default))

    def find(relative):
        path = root / "mri_kspace" / relative
        if not path.is_file():
            pytest.skip(f"no measured data at {path}; set MEDRECON_TEST_DATA")
        return path

    return find
