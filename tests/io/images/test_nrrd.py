"""NRRD in: values, geometry, and files that are damaged or something else."""

import gzip

import numpy as np
import pytest

from medrecon.errors import InputError
from medrecon.io.images import load_image

HEAD = """NRRD0004
# a comment
type: short
dimension: 3
space: left-posterior-superior
sizes: 4 3 2
space directions: (0.5,0,0) (0,-0.75,0) (0,0,6)
kinds: domain domain domain
endian: little
encoding: gzip
space origin: (-1,2,-3)
name:=a key and value pair
"""
VOXELS = np.arange(-3, 21, dtype=np.int16).reshape(2, 3, 4)


def write(path, head=HEAD, data=None, newline="\n"):
    data = gzip.compress(VOXELS.astype("<i2").tobytes()) if data is None else data
    path.write_bytes((head + "\n").replace("\n", newline).encode() + data)
    return path


def test_values_and_geometry(tmp_path):
    image = load_image(write(tmp_path / "a.nrrd"))
    assert image.array.dtype == np.float32
    assert np.array_equal(image.array, VOXELS)
    assert np.allclose(image.geometry.affine, [[-0.5, 0, 0, 1], [0, 0.75, 0, -2], [0, 0, 6, -3], [0, 0, 0, 1]])
    assert image.geometry.oriented
    assert image.modality == "OT"


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"encoding: gzip": "encoding: raw", "endian: little": "endian: big", "type: short": "type: float"}, ">f4"),
        ({"encoding: gzip": "encoding: raw", "type: short": "type: unsigned char"}, "u1"),
        ({"encoding: gzip": "encoding: raw", "type: short": "type: double", "left-posterior": "LEFT-posterior"}, "<f8"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_types_and_bytes(tmp_path, changes, dtype, newline):
    head = HEAD
    for old, new in changes.items():
        head = head.replace(old, new)
    voxels = np.abs(VOXELS)
    image = load_image(write(tmp_path / "a.nrrd", head, voxels.astype(dtype).tobytes(), newline))
    assert np.array_equal(image.array, voxels)
    assert image.geometry.oriented


def test_two_axes_without_orientation(tmp_path):
    head = "NRRD0001\ntype: uint8\ndimension: 2\nsizes: 4 6\nspacings: 2 nan\nencoding: raw\n"
    image = load_image(write(tmp_path / "a.nrrd", head, bytes(range(24))))
    assert image.array.shape == (1, 6, 4)
    assert image.geometry.spacing == (2.0, 1.0, 1.0)
    assert not image.geometry.oriented


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("encoding: gzip", "encoding: bzip2", "encoding 'bzip2' is not read"),
        ("encoding: gzip", "data file: /etc/passwd", "says that the voxels lie elsewhere"),
        ("type: short", "type: block", "voxels of the type 'block'"),
        ("sizes: 4 3 2", "sizes: 4 3 2 5", "two or three axes, got the sizes '4 3 2 5'"),
        ("sizes: 4 3 2", "sizes: 4 0 2", "two or three axes"),
        ("sizes: 4 3 2", "sizes: 4 3 3", "truncated, 48 of 72 bytes"),
        ("sizes: 4 3 2", "sizes: 40000 40000 40000", "may be read"),
        ("kinds: domain domain domain", "kinds: RGB-color domain domain", "axes of the kind rgb-color"),
        ("(0.5,0,0)", "(x,0,0)", "directions that make no grid"),
        ("(0.5,0,0)", "(0,0,0)", "directions that make no grid"),
    ],
)
def test_refused(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        load_image(write(tmp_path / "a.nrrd", HEAD.replace(old, new)))


def test_damaged(tmp_path):
    whole = write(tmp_path / "a.nrrd").read_bytes()
    for data in (whole[:-9], whole[:-30] + bytes(30), HEAD.encode()):
        (tmp_path / "b.nrrd").write_bytes(data)
        with pytest.raises(InputError, match="get a fresh copy"):
            load_image(tmp_path / "b.nrrd")
