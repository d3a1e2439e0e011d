import struct

import pytest

from medrecon.errors import InputError
from medrecon.io.dicom_preflight import is_dicom, outline

EXPLICIT, IMPLICIT = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0"


def dicom(body, syntax=EXPLICIT):
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + body


def element(group, number, kind, value, length=None):
    length = len(value) if length is None else length
    if kind in (b"SQ", b"OW", b"UN", b"OB"):
        return struct.pack("<HH2sHL", group, number, kind, 0, length) + value
    return struct.pack("<HH2sH", group, number, kind, length) + value


def item(content, length=None):
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if length is None else length) + content


PIXELS = element(0x7FE0, 0x10, b"OW", bytes(8))
OPEN = 0xFFFFFFFF
CLOSE_ITEM, CLOSE = struct.pack("<HHL", 0xFFFE, 0xE00D, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "image.dcm"
        path.write_bytes(data)
        return path

    return write


def nested(depth, closed=True):
    """A sequence in a sequence in a sequence, the way pydicom follows recursively."""
    start = element(8, 0x1140, b"SQ", b"", OPEN) + item(b"", OPEN)
    return start * depth + (CLOSE_ITEM + CLOSE) * (depth if closed else 0)


def test_a_sound_file(file):
    found = outline(file(dicom(element(0x28, 0x10, b"US", b"\2\0") + nested(15) + PIXELS)))
    assert (found.has_pixels, found.pixel_bytes, found.frame_groups) == (True, 8, False)


def test_sequences_of_known_length(file):
    inner = element(8, 0x1140, b"SQ", item(element(8, 0x1155, b"UI", b"1.2\0")))
    found = outline(file(dicom(element(8, 0x1140, b"SQ", item(inner) + item(b"")) + PIXELS)))
    assert found.pixel_bytes == 8


def test_implicit_encoding(file):
    body = struct.pack("<HHL", 0x28, 0x10, 2) + b"\2\0" + struct.pack("<HHL", 0x7FE0, 0x10, 4) + bytes(4)
    assert outline(file(dicom(body, IMPLICIT))).pixel_bytes == 4


def test_unknown_sequences_of_undefined_length(file):
    body = element(9, 0x1001, b"UN", item(struct.pack("<HHL", 8, 0x60, 2) + b"MR", OPEN) + CLOSE_ITEM + CLOSE, OPEN)
    assert outline(file(dicom(body + PIXELS))).pixel_bytes == 8


def test_encapsulated_pixels(file):
    body = element(0x7FE0, 0x10, b"OB", item(b"") + item(bytes(10)) + CLOSE, OPEN)
    found = outline(file(dicom(body)))
    assert (found.has_pixels, found.pixel_bytes) == (True, None)


def test_frame_groups_are_noticed(file):
    assert outline(file(dicom(element(0x5200, 0x9230, b"SQ", b"") + PIXELS))).frame_groups


def test_no_pixels(file):
    assert not outline(file(dicom(element(8, 0x60, b"CS", b"SR")))).has_pixels


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (nested(17) + PIXELS, "nested more than 16 deep"),
        (nested(3000) + PIXELS, "nested more than 16 deep"),
        (nested(3, closed=False), "ends within a sequence"),
        (element(8, 0x60, b"CS", b"MR", length=2000), "an element of 2000 bytes where 2 are left"),
        (element(0x7FE0, 0x10, b"OW", bytes(8), length=2 << 30), "pixel data of 2147483648 bytes in a file of"),
        (element(8, 0x1140, b"SQ", item(b"", length=500), length=8), "an element of 500 bytes where 0 are left"),
        (item(b""), "outside of any sequence"),
        (element(8, 0x1140, b"SQ", CLOSE), "unexpected delimiter"),
        (b"\x08\x00\x60", "ends within an element"),
    ],
)
def test_flaws_are_named(file, body, message):
    with pytest.raises(InputError, match=message):
        outline(file(dicom(body)))


def test_too_many_elements(file):
    with pytest.raises(InputError, match="more than 200000 DICOM elements"):
        outline(file(dicom(element(9, 0x1001, b"LO", b"") * 200_001)))


def test_deflated_files_are_refused(file):
    with pytest.raises(InputError, match="deflated"):
        outline(file(dicom(b"", b"1.2.840.10008.1.2.1.99")))


def test_foreign_files(file, tmp_path):
    assert not is_dicom(file(b"x" * 500))
    assert not is_dicom(tmp_path / "absent")
    with pytest.raises(InputError, match="not a DICOM file"):
        outline(file(b"x" * 500))
    with pytest.raises(InputError, match="cannot be read"):
        outline(tmp_path / "absent")
    with pytest.raises(InputError, match="no transfer syntax"):
        outline(file(bytes(128) + b"DICM" + PIXELS))
