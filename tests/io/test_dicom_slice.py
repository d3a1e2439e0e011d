from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from medrecon.errors import InputError
from medrecon.io.dicom_slice import read_pixels, read_slice

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture
def small(tmp_path):
    """A real slice, to be changed."""
    path = tmp_path / "a.dcm"
    path.write_bytes((BUNDLED / "MR_small.dcm").read_bytes())
    return path


def test_header_and_pixels(small):
    image = read_slice(small)
    assert image.matrix == (64, 64)
    assert image.spacing == (0.3125, 0.3125)
    assert image.thickness == 0.8
    np.testing.assert_array_equal(read_pixels(image), pydicom.dcmread(small).pixel_array)
    assert "PatientName" not in image.header
    assert image.numbers("EchoTime", 2) is None


def test_rescale_goes_before_the_real_world_mapping(small):
    data = pydicom.dcmread(small)
    mapping = pydicom.Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, -3.0
    data.RealWorldValueMappingSequence = [mapping]
    data.save_as(small)
    np.testing.assert_array_equal(read_pixels(read_slice(small)), data.pixel_array * 0.5 - 3)
    data.RescaleSlope, data.RescaleIntercept = "2", "1"
    data.save_as(small)
    np.testing.assert_array_equal(read_pixels(read_slice(small)), data.pixel_array * 2.0 + 1)


def test_two_mappings_are_no_choice(small):
    data = pydicom.dcmread(small)
    mapping = pydicom.Dataset()
    mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, -3.0
    data.RealWorldValueMappingSequence = [mapping, mapping]
    data.save_as(small)
    np.testing.assert_array_equal(read_pixels(read_slice(small)), data.pixel_array)


def test_a_missing_decoder_is_named(monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(InputError, match=r"encoded as JPEG 2000 .* no decoder for it is installed; .*pylibjpeg"):
        read_pixels(read_slice(BUNDLED / "MR_small_jp2klossless.dcm"))


def test_the_budget_holds_before_pixels_are_read(small):
    with pytest.raises(InputError, match="--max-bytes"):
        read_slice(small, max_bytes=1000)
