"""DICOM-CT-PD: a helical scan of an ellipsoid by its closed form, written with the documented elements."""

import math
import struct

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medrecon.errors import InputError
from medrecon.io import ReadOptions, read_scan

ORBIT, DISTANCE = 595.0, 1085.6
TURN, ROWS, COLUMNS = 90, 8, 121
PITCH, ROW_PITCH = 2.0, 4.0
CENTRE = (61.75, 4.5)  # column and row, counted from 1
MU, SEMI, MIDDLE = 0.02, (40.0, 30.0, 60.0), (8.0, -12.0, 0.0)  # 1/mm; mm


def line_integrals(angle, z, shape):
    """Integrals through an ellipsoid along the rays of one view, (rows, columns)."""
    u = (np.arange(COLUMNS) + 1 - CENTRE[0]) * PITCH
    v = (np.arange(ROWS) + 1 - CENTRE[1]) * ROW_PITCH
    source = np.array([ORBIT * math.sin(angle), -ORBIT * math.cos(angle), z])
    along, ahead = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    gamma = u / DISTANCE
    if shape == "FLAT":
        plane = DISTANCE * ahead + u[:, None] * along
    else:
        plane = DISTANCE * (np.sin(gamma)[:, None] * along + np.cos(gamma)[:, None] * ahead)
    ray = np.concatenate(
        [np.broadcast_to(plane, (ROWS, COLUMNS, 2)), np.broadcast_to(v[:, None, None], (ROWS, COLUMNS, 1))], axis=2
    )
    ray /= np.linalg.norm(ray, axis=2, keepdims=True)
    start, direction = (source - MIDDLE) / SEMI, ray / SEMI
    a, b, c = (direction**2).sum(2), (direction * start).sum(2), (start**2).sum() - 1
    return MU * 2 * np.sqrt(np.maximum(b**2 - a * c, 0)) / a


def write_view(path, number, angle, z, series, shape, **changes):
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.InstanceNumber = series, number
    data.Rows, data.Columns, data.BitsAllocated, data.PixelRepresentation = COLUMNS, ROWS, 16, 0
    data.RescaleSlope, data.RescaleIntercept = "0.0001", "-0.05"
    values = {
        (0x7029, 0x1010): [ROWS], (0x7029, 0x1011): [COLUMNS], (0x7029, 0x1002): [PITCH],
        (0x7029, 0x1006): [ROW_PITCH], (0x7031, 0x1001): [angle % (2 * math.pi)], (0x7031, 0x1002): [z],
        (0x7031, 0x1003): [ORBIT], (0x7031, 0x1031): [DISTANCE], (0x7031, 0x1033): CENTRE,
        (0x7033, 0x1013): [TURN], (0x7041, 0x1001): [0.0192],
    }  # fmt: skip
    texts = {(0x7029, 0x100B): shape, (0x7033, 0x100E): "FFSNONE"}
    for tag, value in {**values, **texts, **changes.pop("tags", {})}.items():
        if value is None:
            continue
        raw = value.encode() if isinstance(value, str) else struct.pack(f"<{len(value)}f", *value)
        data.add_new(tag, "OB", raw + b" " * (len(raw) % 2))
    lines = line_integrals(angle, z, shape)
    stored = np.rint((lines + 0.05) / 0.0001).astype("<u2")
    data.add_new((0x7FE0, 0x0010), "OW", stored.tobytes())  # column after column is fastest
    data.save_as(path / f"{number:05d}.dcm", enforce_file_format=True)


def write_series(path, *, turns=2.4, feed=12.0, direction=1, shape="CYLINDRICAL", start=0.7, **changes):
    series = generate_uid()
    views = round(turns * TURN)
    for index in range(views):
        angle = start + direction * 2 * math.pi * index / TURN
        write_view(path, index + 1, angle, feed * (index / TURN - turns / 2), series, shape, **changes)
    return path


def truth(scan, index):
    size, pixel = scan.acquisition.image_shape[1], scan.acquisition.pixel_size
    z = float(scan.geometry.affine[2, 3]) + index * float(scan.geometry.affine[2, 2])
    axis = (np.arange(size) - (size - 1) / 2) * pixel
    x, y = np.meshgrid(axis, -axis)
    inside = ((x - MIDDLE[0]) / SEMI[0]) ** 2 + ((y - MIDDLE[1]) / SEMI[1]) ** 2 + ((z - MIDDLE[2]) / SEMI[2]) ** 2 < 1
    return MU * inside


@pytest.mark.parametrize("shape", ["CYLINDRICAL", "FLAT"])
@pytest.mark.parametrize("direction", [1, -1])
def test_helix(tmp_path, shape, direction):
    write_series(tmp_path, shape=shape, direction=direction)
    scan = read_scan(tmp_path, ReadOptions(image_size=96))
    assert scan.format == "dicom-ct-pd"
    assert scan.acquisition.detector_shape == ("flat" if shape == "FLAT" else "arc")
    assert scan.mu_water == pytest.approx(0.0192)
    assert len(scan.measurements) == math.floor(1.4 * 12 / (ROW_PITCH * ORBIT / DISTANCE)) + 1
    index = len(scan.measurements) // 2
    image = scan.acquisition.filtered_backprojection(scan.measurements[index][None])[0, 0].numpy()
    true = truth(scan, index)
    assert np.linalg.norm(image - true) / np.linalg.norm(true) < 0.2
    inside = (slice(52, 60), slice(48, 56))
    assert image[inside].mean() == pytest.approx(MU, rel=0.01)


def test_any_file_names_the_series(tmp_path):
    write_series(tmp_path)
    scan = read_scan(tmp_path / "00017.dcm")
    assert torch.equal(scan.measurements[0], read_scan(tmp_path).measurements[0])


def test_axial_scan(tmp_path):
    write_series(tmp_path, turns=1.0, feed=0.0)
    scan = read_scan(tmp_path, ReadOptions(image_size=64))
    assert len(scan.measurements) == ROWS
    image = scan.acquisition.filtered_backprojection(scan.measurements[4][None])[0, 0].numpy()
    assert image[34:40, 32:38].mean() == pytest.approx(MU, rel=0.02)


def test_other_series_are_left_out(tmp_path):
    write_series(tmp_path)
    write_view(tmp_path, 99999, 0.0, 0.0, generate_uid(), "CYLINDRICAL")
    scan = read_scan(tmp_path / "00001.dcm")
    assert "1 projections of other series" in " ".join(scan.notes)


@pytest.mark.parametrize(("stated", "expected"), [([0.192], 0.0192), ([5.0], None), (None, None)])
def test_attenuation_of_water(tmp_path, stated, expected):
    write_series(tmp_path, turns=1.0, feed=0.0, tags={(0x7041, 0x1001): stated})
    scan = read_scan(tmp_path)
    assert scan.mu_water == (None if expected is None else pytest.approx(expected))
    assert any("attenuation of water" in note for note in scan.notes)


def test_flying_focal_spot_is_told(tmp_path):
    write_series(tmp_path, turns=1.0, feed=0.0, tags={(0x7033, 0x100E): "FFSXYZ", (0x7033, 0x100C): [0.5]})
    assert any("flying focal spot FFSXYZ" in note for note in read_scan(tmp_path).notes)


def test_missing_views(tmp_path):
    write_series(tmp_path)
    for number in range(30, 50):
        (tmp_path / f"{number:05d}.dcm").unlink()
    with pytest.raises(InputError, match="do not run evenly"):
        read_scan(tmp_path)


def test_less_than_a_turn(tmp_path):
    write_series(tmp_path, turns=0.8)
    with pytest.raises(InputError, match="288 degrees; expected at least one turn"):
        read_scan(tmp_path)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({(0x7031, 0x1003): None}, r"\(7031,1003\) of DICOM-CT-PD is missing"),
        ({(0x7029, 0x1002): [-1.0]}, r"\(7029,1002\) is -1, expected a length"),
        ({(0x7031, 0x1033): [3.0]}, r"holds 1 usable numbers, expected 2"),
        ({(0x7029, 0x100B): "ROUND"}, "detector shape is 'ROUND'"),
        ({(0x7029, 0x1010): [2.5]}, r"\(7029,1010\) is 2.5, expected a number of"),
        ({(0x7031, 0x1001): [math.nan]}, r"\(7031,1001\) holds"),
    ],
)
def test_wrong_elements(tmp_path, tags, message):
    write_view(tmp_path, 1, 0.0, 0.0, generate_uid(), "CYLINDRICAL", tags=tags)
    with pytest.raises(InputError, match=message):
        read_scan(tmp_path)


def test_another_detector_in_between(tmp_path):
    write_series(tmp_path, turns=1.0)
    first = pydicom.dcmread(tmp_path / "00001.dcm")
    write_view(tmp_path, 200, 0.0, 0.0, first.SeriesInstanceUID, "CYLINDRICAL", tags={(0x7031, 0x1031): [999.0]})
    with pytest.raises(InputError, match="another detector geometry"):
        read_scan(tmp_path / "00001.dcm")


def test_twice_the_same_number(tmp_path):
    write_series(tmp_path, turns=1.0)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "00003.dcm").read_bytes())
    with pytest.raises(InputError, match="same InstanceNumber"):
        read_scan(tmp_path)


def test_short_pixels(tmp_path):
    write_series(tmp_path, turns=1.0, feed=0.0)
    path = tmp_path / "00040.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError):
        read_scan(tmp_path).measurements[3]


def test_folder_of_anything_else(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match="a folder without DICOM-CT-PD projections"):
        read_scan(tmp_path)
