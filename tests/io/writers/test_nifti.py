import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest

from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.images import load_image
from medrecon.io.writers.nifti import write_nifti


def read_by_hand(path):
    """The NIfTI-1 standard, byte by byte, independent of nibabel."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert struct.unpack("<i", data[:4]) == (348,)
    assert data[344:348] == b"n+1\0"
    dim = struct.unpack("<8h", data[40:56])
    code, bits = struct.unpack("<2h", data[70:74])
    offset, slope = struct.unpack("<2f", data[108:116])
    units, descrip = data[123], data[148:228].rstrip(b"\0").decode()
    qform, sform = struct.unpack("<2h", data[252:256])
    affine = np.vstack([np.frombuffer(data, "<f4", 12, 280).reshape(3, 4), [0, 0, 0, 1]])
    dtype = {16: "<f4", 32: "<c8"}[code]
    assert np.dtype(dtype).itemsize * 8 == bits
    shape = dim[1 : dim[0] + 1]
    voxels = np.frombuffer(data, dtype, int(np.prod(shape)), int(offset)).reshape(shape, order="F")
    assert slope in (0, 1) or np.isnan(slope)
    return voxels, affine, {"qform": qform, "sform": sform, "units": units, "descrip": descrip}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_an_independent_reader_finds_voxels_and_affine(mr, tmp_path, suffix, dtype):
    array = mr.array.astype(dtype) * (1j if dtype is np.complex64 else 1)
    path = tmp_path / f"image{suffix}"
    write_nifti(replace(mr, array=array), path)
    voxels, affine, rest = read_by_hand(path)
    np.testing.assert_array_equal(voxels.transpose(2, 1, 0), array)
    np.testing.assert_array_equal(affine, mr.geometry.affine.astype(np.float32))
    assert rest["qform"] == rest["sform"] == 1
    assert rest["units"] & 7 == 2  # mm
    assert "not for diagnostic use" in rest["descrip"]


def test_qform_and_sform_agree(mr, tmp_path):
    import nibabel

    write_nifti(mr, tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    np.testing.assert_allclose(header.get_qform(), mr.geometry.affine, atol=1e-4)
    assert header.get_zooms() == pytest.approx(mr.geometry.spacing, rel=1e-6)


def test_an_assumed_orientation_is_marked(mr, tmp_path):
    image = replace(mr, geometry=Geometry.from_spacing((1.2, 0.9, 3.0), mr.array.shape))
    write_nifti(image, tmp_path / "a.nii.gz")
    _, affine, rest = read_by_hand(tmp_path / "a.nii.gz")
    assert (rest["sform"], rest["qform"]) == (2, 0)
    assert "orientation assumed" in rest["descrip"]
    np.testing.assert_array_equal(affine, image.geometry.affine.astype(np.float32))
    assert not load_image(tmp_path / "a.nii.gz").geometry.oriented


def test_a_sheared_grid_keeps_its_sform(mr, tmp_path):
    affine = mr.geometry.affine.copy()
    affine[:3, 2] += 0.5 * affine[:3, 0]
    write_nifti(replace(mr, geometry=Geometry(affine)), tmp_path / "a.nii")
    _, written, rest = read_by_hand(tmp_path / "a.nii")
    assert (rest["sform"], rest["qform"]) == (1, 0)
    np.testing.assert_array_equal(written, affine.astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 1, 1), (4, 3, 1), (3, 6, 5)])
def test_round_trip(shape, oblique, tmp_path):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    write_nifti(Image(array, oblique, "CT"), tmp_path / "a.nii.gz")
    back = load_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.geometry.affine, oblique.affine, rtol=1e-6, atol=1e-6)
    assert back.modality == "CT"
    assert back.geometry.oriented


def test_same_image_same_bytes(mr, tmp_path):
    write_nifti(mr, tmp_path / "a.nii.gz")
    write_nifti(mr, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
