"""MATLAB files of both kinds as array files see them."""

import numpy as np
import pytest

from medrecon.io.hdf5 import Hdf5File
from medrecon.io.mat import is_mat5, is_mat73, mat5_variables, mat73_variables

scipy_io = pytest.importorskip("scipy.io")
h5py = pytest.importorskip("h5py")


def test_version_5(tmp_path):
    path = tmp_path / "a.mat"
    array = np.arange(24).reshape(2, 3, 4) + 1j
    scipy_io.savemat(path, {"k": array, "text": "hello"})
    assert is_mat5(path.read_bytes())
    assert not is_mat73(path.read_bytes())
    ((name, variable),) = mat5_variables(path).items()
    assert (name, variable.shape, variable.nbytes) == ("k", (2, 3, 4), 24 * 16)
    assert np.array_equal(variable.read(), array)


def test_version_73_reverses_the_axes(tmp_path):
    path = tmp_path / "a.mat"
    array = (np.arange(24).reshape(2, 3, 4) + 1j).astype(np.complex64)
    with h5py.File(path, "w", userblock_size=512) as file:
        pair = np.empty((4, 3, 2), [("real", "<f4"), ("imag", "<f4")])
        pair["real"], pair["imag"] = array.T.real, array.T.imag
        file.create_dataset("k", data=pair).attrs["MATLAB_class"] = np.bytes_("single")
        file.create_dataset("word", data=np.zeros((5, 1), np.uint16)).attrs["MATLAB_class"] = np.bytes_("char")
        empty = file.create_dataset("empty", data=np.zeros(2, np.uint64))
        empty.attrs["MATLAB_class"] = np.bytes_("double")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        file["names"] = np.array([b"fixed", b"text"])
        file["#refs#/b"] = np.zeros(4)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    assert is_mat73(path.read_bytes())
    assert not is_mat5(path.read_bytes())
    with Hdf5File(path) as file:
        variables = mat73_variables(file)
        assert {name: variable.shape for name, variable in variables.items()} == {"k": (2, 3, 4)}
        assert np.array_equal(variables["k"].read(), array)
