import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medrecon.errors import InputError
from medrecon.io.images import load_image

BUNDLED = Path(nibabel.__file__).parent / "tests" / "data"


def save(path, array, affine=None, **header):
    image = nibabel.Nifti1Image(array, np.diag([2.0, 3, 4, 1]) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


class TestRealFiles:
    @pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "reoriented_anat_moved.nii"])
    def test_three_dimensions(self, name):
        theirs, image = nibabel.load(BUNDLED / name), load_image(BUNDLED / name)
        voxels = theirs.get_fdata(dtype=np.float32)
        np.testing.assert_allclose(image.array.transpose(2, 1, 0), voxels, rtol=1e-6)
        np.testing.assert_allclose(image.geometry.affine, theirs.affine)
        assert image.geometry.oriented

    def test_one_volume_of_several(self):
        path = BUNDLED / "functional.nii"
        voxels = nibabel.load(path).get_fdata(dtype=np.float32)
        first, last = load_image(path), load_image(path, key="20")
        np.testing.assert_allclose(first.array.transpose(2, 1, 0), voxels[..., 0], rtol=1e-6)
        np.testing.assert_allclose(last.array.transpose(2, 1, 0), voxels[..., 19], rtol=1e-6)
        assert "20 volumes" in first.provenance["notes"][0]
        assert last.provenance["notes"] == []

    @pytest.mark.parametrize("key", ["0", "21", "-1", "x"])
    def test_volumes_that_do_not_exist(self, key):
        with pytest.raises(InputError, match="pass a number from 1 to 20 with --key"):
            load_image(BUNDLED / "functional.nii", key=key)

    def test_version_two(self):
        assert load_image(BUNDLED / "example_nifti2.nii.gz").array.shape == (12, 20, 32)

    def test_pairs_are_refused(self):
        with pytest.raises(InputError, match=r"pair of .hdr and .img"):
            load_image(BUNDLED / "nifti1.hdr")


def test_two_dimensions(tmp_path):
    image = load_image(save(tmp_path / "a.nii", np.arange(6, dtype=np.int16).reshape(3, 2)))
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, [[[0, 2, 4], [1, 3, 5]]])


def test_complex_values(tmp_path):
    array = (np.arange(24).reshape(2, 3, 4) * (1 + 2j)).astype(np.complex128)
    image = load_image(save(tmp_path / "a.nii.gz", array))
    assert image.array.dtype == np.complex64
    np.testing.assert_array_equal(image.array.transpose(2, 1, 0), array)


def test_trailing_axes_of_one(tmp_path):
    image = load_image(save(tmp_path / "a.nii", np.ones((2, 3, 4, 1, 1), np.float32)))
    assert image.array.shape == (4, 3, 2)


def test_big_endian(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), header), tmp_path / "a.nii")
    np.testing.assert_array_equal(load_image(tmp_path / "a.nii").array.transpose(2, 1, 0), array)


def test_scaled_integers(tmp_path):
    path = save(tmp_path / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    data = bytearray(path.read_bytes())
    data[112:120] = struct.pack("<2f", 0.5, -10)
    path.write_bytes(data)
    image = load_image(path)
    np.testing.assert_array_equal(image.array.transpose(2, 1, 0), np.arange(24).reshape(2, 3, 4) * 0.5 - 10)


def test_other_units(tmp_path):
    image = load_image(save(tmp_path / "a.nii", np.ones((2, 3, 4), np.float32), xyzt_units=3))
    assert image.geometry.spacing == pytest.approx((0.002, 0.003, 0.004))


def test_no_orientation(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((2, 3, 4), np.float32))
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)
    path.write_bytes(data)
    image = load_image(path)
    assert not image.geometry.oriented
    assert image.geometry.spacing == pytest.approx((2, 3, 4))
    assert "no orientation" in image.provenance["notes"][0]


@pytest.mark.parametrize("first", [0.0, np.nan])
def test_a_broken_affine(tmp_path, first):
    path = save(tmp_path / "a.nii", np.ones((2, 3, 4), np.float32))
    data = bytearray(path.read_bytes())
    data[280:284] = struct.pack("<f", first)
    path.write_bytes(data)
    with pytest.raises(InputError, match="affine or voxel size"):
        load_image(path)


def test_colours_are_refused(tmp_path):
    array = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="colours or structures"):
        load_image(save(tmp_path / "a.nii", array))


def declared(shape):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_bomb_is_refused_by_its_header(tmp_path, pack):
    (tmp_path / "a.nii.gz").write_bytes(pack(declared((30000, 30000, 30000)) + bytes(1 << 20)))
    with pytest.raises(InputError, match="--max-bytes"):
        load_image(tmp_path / "a.nii.gz")


def test_the_budget(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((20, 20, 20), np.float32))
    with pytest.raises(InputError, match="--max-bytes"):
        load_image(path, max_bytes=10_000)
    load_image(path, max_bytes=100_000)


def test_an_endless_header(tmp_path):
    data = bytearray(declared((2, 2, 2)))
    data[108:112] = struct.pack("<f", 1e12)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data))
    with pytest.raises(InputError, match="voxels are said to begin"):
        load_image(tmp_path / "a.nii.gz")


def test_negative_lengths(tmp_path):
    data = bytearray(declared((2, 2, 2)))
    data[42:44] = struct.pack("<h", -5)
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(InputError):
        load_image(tmp_path / "a.nii")


def test_gzip_without_nifti(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"hello"))
    with pytest.raises(InputError, match="known format"):
        load_image(tmp_path / "a.gz")
