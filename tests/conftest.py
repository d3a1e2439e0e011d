"""Shared by all tests: where the optional real data lie, files like fastMRI's, one thread so that figures repeat."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"needs the real scans of the folder {DATA.parent.name}/{DATA.name} beside the checkout")
    return DATA


@pytest.fixture(autouse=True)
def shipped_folder(monkeypatch, tmp_path_factory):
    """Folder of the trained models that come with the package: empty, for tests say themselves what is in it."""
    folder = tmp_path_factory.getbasetemp() / "no-checkpoints"
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientName>SECRET^NAME</patientName><patientID>SECRET-ID</patientID></subjectInformation>
 <acquisitionSystemInformation><systemVendor>Nobody</systemVendor>
  <systemFieldStrength_T>2.8936</systemFieldStrength_T></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>123204951</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>280</x><y>{width}</y><z>3</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>140</x><y>140</y><z>3</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum>
   <center>{center}</center></kspace_encoding_step_1></encodingLimits>
  <trajectory>cartesian</trajectory>
 </encoding>
 <sequenceParameters><TR>2800</TR><TE>22</TE><flipAngle_deg>140</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""


def _phantom(size: int) -> np.ndarray:
    """Ellipses in the manner of Shepp and Logan."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.zeros((size, size))
    for value, a, b, x0, y0 in (
        (1, 0.7, 0.9, 0, 0),
        (-0.6, 0.6, 0.8, 0, 0),
        (0.3, 0.15, 0.3, 0.2, 0),
        (0.2, 0.2, 0.1, -0.2, 0.3),
    ):
        image += value * (((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 < 1)
    return image


def _crop(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[..., top : top + size, left : left + size]


def _centred(transform: Callable, x: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(transform(np.fft.ifftshift(x, axes), norm="ortho", axes=axes), axes)


def write_fastmri_like(path: Path, kind: str, slices: int = 3, seed: int = 7) -> Path:
    """Write a small file in the official layout, by h5py itself and not by our writer."""
    rows, columns, size, coils, pad = {"brain": (64, 32, 32, 4, 2), "single": (64, 48, 32, 1, 0)}.get(
        kind, (64, 48, 32, 4, 0)
    )
    rng = np.random.default_rng(seed)
    moved = seed % 7
    base = 1e-4 * np.stack([np.roll((1 + 0.2 * s) * _phantom(size), s + moved, axis=0) for s in range(slices)])
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    full = np.zeros((slices, rows, columns), complex)
    top, left = (rows - size) // 2, (columns - size) // 2
    full[:, top : top + size, left : left + size] = base
    full *= np.exp(1j * (0.4 * x + 0.2 * y))
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(1j * a - ((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 4) for a in angles])
    kspace = _centred(np.fft.fft2, full[:, None] * maps)
    kspace = kspace + 1e-7 * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
    if pad:
        kspace[..., :pad] = 0
        kspace[..., columns - pad :] = 0
    target = np.sqrt((np.abs(_crop(_centred(np.fft.ifft2, kspace), size)) ** 2).sum(1)).astype(np.float32)
    header = HEADER.format(
        rows=rows, columns=columns, width=280 * columns / rows, size=size,
        maximum=columns - 2 * pad - 1, center=columns // 2 - pad,
    )  # fmt: skip
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header  # of variable length, as the official files have it
        file.attrs["acquisition"] = {"brain": "AXT2"}.get(kind, "CORPD_FBK")
        file.attrs["patient_id"] = "SECRET-PATIENT"
        if kind == "test":
            mask = np.arange(columns) % 4 == 0
            mask[columns // 2 - 2 : columns // 2 + 2] = True
            kspace = kspace * mask
            file["mask"] = mask
            file.attrs["acceleration"] = 4
            file.attrs["num_low_frequency"] = 4
        else:
            file.attrs["max"], file.attrs["norm"] = float(target.max()), float(np.linalg.norm(target))
            file["reconstruction_rss"] = target
            if kind == "single":
                file["reconstruction_esc"] = target
        kspace = kspace.astype(np.complex64)
        file["kspace"] = kspace[:, 0] if kind == "single" else kspace
    return path


@pytest.fixture(scope="session")
def _fastmri_originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fastmri")
    return {kind: write_fastmri_like(folder / f"{kind}.h5", kind) for kind in ("single", "multi", "brain", "test")}


@pytest.fixture
def fastmri_file(_fastmri_originals, tmp_path):
    """Factory: a private copy of the file ``single``, ``multi``, ``brain`` or ``test``."""

    def make(kind: str) -> Path:
        path = tmp_path / f"file_{kind}.h5"
        path.write_bytes(_fastmri_originals[kind].read_bytes())
        return path

    return make


@pytest.fixture
def fastmri_folder(tmp_path):
    """Factory: a folder of ``count`` volumes of a kind, each with its own content."""

    def make(kind: str = "multi", count: int = 3, slices: int = 3, name: str = "train") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            write_fastmri_like(folder / f"file{index:03}.h5", kind, slices, seed=index + 8)
        return folder

    return make


@pytest.fixture
def mrd_header_text():
    """Header of a 64x48 knee scan, with names in it that nobody should see."""
    return HEADER.format(rows=64, columns=48, width=210, size=32, maximum=47, center=24)


@pytest.fixture
def hang(tmp_path):
    """HDF5 file on which reading the variable-length text loops for ever: one byte of the global heap is off."""
    path = tmp_path / "hang.h5"
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = "<x/>"
    data = bytearray(path.read_bytes())
    data[data.index(b"GCOL") + 48] = 0x28
    path.write_bytes(data)
    return path
