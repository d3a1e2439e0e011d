import h5py
import numpy as np
import pytest
import scipy.io

from medrecon.errors import InputError, NumericalError
from medrecon.io.images import load_image

STACK = np.arange(24, dtype=np.float64).reshape(2, 3, 4)


@pytest.mark.parametrize("array", [STACK, STACK[0], STACK.astype(np.int16), STACK * (1 - 2j), STACK > 5])
def test_npy(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    image = load_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(image.array, array if array.ndim == 3 else array[None])
    assert image.array.dtype == (np.complex64 if np.iscomplexobj(array) else np.float32)
    assert not image.geometry.oriented


def test_the_result_is_writable_memory(tmp_path):
    np.save(tmp_path / "a.npy", STACK.astype(np.float32))
    load_image(tmp_path / "a.npy").array[0, 0, 0] = 7
    assert np.load(tmp_path / "a.npy")[0, 0, 0] == 0


def test_npz_by_key(tmp_path):
    np.savez(tmp_path / "a.npz", first=STACK, second=-STACK)
    np.testing.assert_array_equal(load_image(tmp_path / "a.npz", key="second").array, -STACK)
    with pytest.raises(InputError, match="--key"):
        load_image(tmp_path / "a.npz")
    with pytest.raises(InputError, match="'third'"):
        load_image(tmp_path / "a.npz", key="third")


def test_mat(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"im": STACK[0]})
    np.testing.assert_array_equal(load_image(tmp_path / "a.mat").array[0], STACK[0])


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2, 2), (0, 3)])
def test_other_shapes(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    with pytest.raises(InputError, match=r"expected .rows, columns."):
        load_image(tmp_path / "a.npy")


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled"):
        load_image(tmp_path / "a.npy")


def test_the_budget(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((20, 20, 20)))
    with pytest.raises(InputError, match="--max-bytes"):
        load_image(tmp_path / "a.npy", max_bytes=100_000)


def test_an_own_file_with_a_broken_affine(tmp_path):
    np.savez(tmp_path / "a.npz", array=STACK, affine=np.zeros((4, 4)))
    with pytest.raises(InputError, match="invertible"):
        load_image(tmp_path / "a.npz")


class TestHdf5:
    @pytest.fixture
    def knee(self, tmp_path):
        """Both targets of a single-coil file of fastMRI, without its k-space."""
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["reconstruction_esc"] = STACK.astype(np.float32)
            file["reconstruction_rss"] = -STACK.astype(np.float32)
            file["other"] = STACK * 2
        return tmp_path / "a.h5"

    def test_the_target_of_the_file(self, knee):
        image = load_image(knee)
        np.testing.assert_array_equal(image.array, STACK)
        assert image.modality == "MR"
        assert "reconstruction_esc is taken" in image.provenance["notes"][0]

    def test_by_key(self, knee):
        np.testing.assert_array_equal(load_image(knee, key="reconstruction_rss").array, -STACK)
        assert load_image(knee, key="other").modality == "OT"

    def test_no_image(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["kspace"] = STACK
        with pytest.raises(InputError, match=r"no image in it .* numeric datasets: kspace"):
            load_image(tmp_path / "a.h5")

    def test_geometry_and_parameters_of_the_scan_beside_it(self, tmp_path):
        header = (
            '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
            "<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz>"
            "</experimentalConditions><encoding>"
            "<encodedSpace><matrixSize><x>6</x><y>4</y><z>1</z></matrixSize><fieldOfView_mm><x>12</x><y>12</y><z>5</z>"
            "</fieldOfView_mm></encodedSpace>"
            "<reconSpace><matrixSize><x>3</x><y>4</y><z>1</z></matrixSize><fieldOfView_mm><x>6</x><y>12</y><z>5</z>"
            "</fieldOfView_mm></reconSpace>"
            "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>3</maximum><center>2</center>"
            "</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>"
            "<sequenceParameters><TR>2000</TR></sequenceParameters></ismrmrdHeader>"
        )
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["kspace"] = np.ones((2, 2, 6, 4), np.complex64)
            file["reconstruction_rss"] = STACK.astype(np.float32)
            file["ismrmrd_header"] = np.bytes_(header)
        image = load_image(tmp_path / "a.h5")
        np.testing.assert_array_equal(image.array, STACK)
        assert image.geometry.spacing == pytest.approx((3.0, 2.0, 5.0))
        assert image.header["repetition_time"] == 2000


def test_values_beyond_single_precision_are_reported(tmp_path):
    np.save(tmp_path / "a.npy", STACK * 1e300)
    with pytest.raises(NumericalError, match="slice 1 of 2"):
        load_image(tmp_path / "a.npy")
