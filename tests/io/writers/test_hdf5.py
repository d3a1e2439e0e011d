import h5py
import numpy as np

from medrecon.io.images import load_image
from medrecon.io.writers.hdf5 import write_hdf5


def test_layout_of_a_fastmri_submission(mr, tmp_path):
    write_hdf5(mr, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file) == ["reconstruction"]
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"], mr.array)
        np.testing.assert_array_equal(file["reconstruction"].attrs["affine"], mr.geometry.affine)


def test_no_string_of_variable_length(mr, tmp_path):
    write_hdf5(mr, tmp_path / "a.h5")
    assert b"GCOL" not in (tmp_path / "a.h5").read_bytes()


def test_round_trip(ct, tmp_path):
    write_hdf5(ct, tmp_path / "a.h5")
    back = load_image(tmp_path / "a.h5")
    np.testing.assert_array_equal(back.array, ct.array)
    np.testing.assert_array_equal(back.geometry.affine, ct.geometry.affine)
    assert back.modality == "CT"
