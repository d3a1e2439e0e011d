import gc
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import medrecon.io
from medrecon.errors import InputError, NumericalError
from medrecon.io import ReadOptions, read_scan
from medrecon.io.registry import _READERS
from medrecon.io.writers.measurements import write_native
from medrecon.operators import CartesianMRI


def test_every_reader_exists_and_has_its_own_name():
    names = [entry.load().name for entry in _READERS]
    assert len(set(names)) == len(names)


def test_the_format_is_found_by_content_and_the_scan_is_checked(fastmri_file):
    path = fastmri_file("multi")
    with h5py.File(path, "a") as file:
        file["kspace"][1, 2, 3, 4] = complex("nan")
    path = path.rename(path.with_name("without_a_telling_name"))
    scan = read_scan(path)
    assert scan.format == "fastmri"
    assert scan.measurements[0].shape == (4, 64, 48)
    with pytest.raises(NumericalError, match=r"slice 1 .*coil 2, line 4, sample 3"):
        scan.measurements[1]
    zeroed = read_scan(path, ReadOptions(nonfinite="zero"))
    assert zeroed.measurements[1][2, 3, 4] == 0


def test_native_files_come_back(tmp_path):
    path = tmp_path / "native"
    write_native(path, torch.ones(1, 1, 6, 8, dtype=torch.complex64), CartesianMRI(image_shape=(6, 8)))
    assert read_scan(path).format == "medrecon"
    with h5py.File(path, "a") as file:
        file["measurements"][0] = 0
    with pytest.raises(NumericalError, match="measurement data of slice 0 is zero everywhere"):
        read_scan(path).measurements[0]


def test_a_key_picks_another_array(fastmri_file):
    path = fastmri_file("multi")
    with h5py.File(path, "a") as file:
        file["other"] = np.ones((4, 6), np.complex64)
    scan = read_scan(path, ReadOptions(key="other"))
    assert scan.format == "arrays"
    assert scan.measurements.shape == (1, 4, 6)
    assert read_scan(path, ReadOptions(key="kspace")).format == "fastmri"


def test_two_formats_in_one_file_need_a_key(fastmri_file):
    path = fastmri_file("multi")
    with h5py.File(path, "a") as file:
        file["dataset/xml"] = "<ismrmrdHeader/>"
        ragged = h5py.vlen_dtype(np.float32)
        file["dataset/data"] = np.zeros(0, dtype=[("head", "<u2"), ("traj", ragged), ("data", ragged)])
    with pytest.raises(InputError, match=r"several formats: fastmri \(--key kspace\), ismrmrd .*choose one with --key"):
        read_scan(path)
    assert read_scan(path, ReadOptions(key="kspace")).format == "fastmri"


def test_foreign_hdf5_files_say_what_is_in_them(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["group/text"] = "hello"
        file["away"] = h5py.ExternalLink("y.h5", "/k")
    with pytest.raises(
        InputError, match=r"an HDF5 file with group/text \(\), away \(which is a link into another file\)"
    ):
        read_scan(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(InputError, match="without any dataset"):
        read_scan(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(128) + b"DICM" + bytes(100), "looks like a DICOM file: an image"),
        (bytes(344) + b"n+1\0" + bytes(8), "looks like a NIfTI file"),
        (b"\x1f\x8b" + bytes(30), "gzip file: unpack it first"),
        (
            b"hello world",
            r"beginning with the bytes 68 65 6c 6c; known formats: medrecon, fastmri, ismrmrd, ",
        ),
    ],
)
def test_unknown_formats_are_named(tmp_path, content, message):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_scan(path)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_scan(tmp_path / "absent.h5")
    with pytest.raises(InputError, match="is a folder"):
        read_scan(tmp_path)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(InputError, match="truncated or corrupt"):
        read_scan(damaged)


def test_bart_files_may_be_named_by_their_stem(tmp_path):
    data = np.ones((5, 4, 1, 2), np.complex64)
    (tmp_path / "scan.hdr").write_text("# Dimensions\n5 4 1 2 1 1 1 1 1 1 1 1 1 1 1 1\n")
    (tmp_path / "scan.cfl").write_bytes(data.tobytes("F"))
    assert read_scan(tmp_path / "scan").format == "cfl"


def test_side_files_replace_what_the_file_says(fastmri_file, tmp_path):
    path = fastmri_file("test")
    mask = np.zeros(48)
    mask[::2] = 1
    np.save(tmp_path / "mask.npy", mask)
    maps = np.ones((4, 64, 48), np.complex64)
    np.save(tmp_path / "maps.npy", maps)
    calibration = np.ones((4, 8, 6), np.complex64)
    np.save(tmp_path / "calibration.npy", calibration)
    options = ReadOptions(
        mask=tmp_path / "mask.npy", maps=tmp_path / "maps.npy", calibration=tmp_path / "calibration.npy"
    )
    acquisition = read_scan(path, options).acquisition
    assert acquisition.mask.expand(3, 64, 48)[2, 5].nonzero().flatten().tolist() == list(range(0, 48, 2))
    assert acquisition.maps.shape == (1, 1, 4, 64, 48)
    assert len(acquisition.calibration) == 3
    assert acquisition.calibration[2].shape == (4, 8, 6)
    assert "supplied by the user: --mask, --maps, --calibration" in read_scan(path, options).notes


def test_scans_let_go_of_their_file(fastmri_file):
    path = fastmri_file("single")
    scan = read_scan(path)
    with h5py.File(path, "a") as file:  # no lock is held
        file["more"] = 1
    assert scan.measurements[0].shape == (1, 64, 48)
    del scan
    gc.collect()


def test_the_public_names_exist_and_import_lazily():
    assert set(medrecon.io.__all__) <= set(dir(medrecon.io))
    for name in medrecon.io.__all__:
        assert getattr(medrecon.io, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medrecon.io.nothing
    code = """
import sys, medrecon.io
light = not {"torch", "h5py", "numpy"} & sys.modules.keys()
import medrecon.io.registry
for entry in medrecon.io.registry._READERS:
    entry.load()
sys.exit(not light or bool({"h5py", "scipy.io", "pydicom", "nibabel"} & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
