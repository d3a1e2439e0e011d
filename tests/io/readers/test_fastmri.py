import time

import h5py
import numpy as np
import pytest
import torch

from medrecon.errors import InputError, NumericalError
from medrecon.io import read_scan
from medrecon.io.checks import with_checks
from medrecon.io.hdf5 import Limits
from medrecon.io.options import ReadOptions
from medrecon.io.readers.fastmri import FastMRIReader
from medrecon.io.source import Source

QUICK = Limits(metadata_seconds=2.0)


def read(path, options=None, **limits):
    return FastMRIReader().read(Source(path, limits=Limits(**limits)), options or ReadOptions())


def change(path, name, value):
    """Replace (or with None remove) a dataset."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
    return path


def header_with(path, old, new):
    with h5py.File(path) as file:
        text = file["ismrmrd_header"].asstr()[()]
    assert old in text
    return change(path, "ismrmrd_header", text.replace(old, new))


@pytest.mark.parametrize(
    ("kind", "shape", "reference"),
    [
        ("single", (1, 64, 48), "reconstruction_esc"),
        ("multi", (4, 64, 48), "reconstruction_rss"),
        ("brain", (4, 64, 32), "reconstruction_rss"),
    ],
)
def test_training_files(fastmri_file, kind, shape, reference):
    path = fastmri_file(kind)
    scan = read(path)
    assert (scan.format, scan.modality, scan.source) == ("fastmri", "MR", path)
    assert scan.measurements.shape == shape
    assert len(scan.measurements) == 3
    assert scan.acquisition.matrix == (32, 32)
    with h5py.File(path) as file:
        for index in range(3):
            expected = file["kspace"][index].reshape(shape)
            assert scan.measurements[index].dtype == torch.complex64
            np.testing.assert_array_equal(scan.measurements[index].numpy(), expected)
            np.testing.assert_array_equal(scan.reference[index].numpy(), file[reference][index])
    with pytest.raises(IndexError):
        scan.measurements[3]


def test_the_reference_is_the_crop_of_the_measurements(fastmri_file):
    scan = read(fastmri_file("multi"))
    image = torch.fft.fftshift(
        torch.fft.ifft2(torch.fft.ifftshift(scan.measurements[1], (-2, -1)), norm="ortho"), (-2, -1)
    )
    rss = image[..., 16:48, 8:40].abs().square().sum(0).sqrt()
    assert torch.allclose(rss, scan.reference[1], rtol=1e-5, atol=1e-9)


def test_training_files_without_padding_have_no_mask(fastmri_file):
    scan = read(fastmri_file("multi"))
    assert scan.acquisition.mask is None
    assert any("exactly zero count as not acquired" in note for note in scan.notes)


def test_the_users_mask_takes_the_place_of_the_zeros(fastmri_file, tmp_path):
    path = fastmri_file("multi")
    width = read(path).measurements.shape[-1]
    np.save(tmp_path / "mask.npy", np.arange(width) % 2 == 0)
    scan = read_scan(path, ReadOptions(mask=tmp_path / "mask.npy"))
    assert scan.acquisition.mask[0, 0].tolist() == [column % 2 == 0 for column in range(width)]
    assert not any("no sampling mask" in note for note in scan.notes)


def test_zero_and_unknown_say_nothing(fastmri_file):
    path = fastmri_file("multi")
    header_with(path, "123204951", "0")
    with h5py.File(path, "a") as file:
        file.attrs["acquisition"] = "UNKNOWN"
    assert not {"imaging_frequency", "acquisition"} & read(path).header.keys()


def test_padding_of_brain_files_is_not_acquired(fastmri_file):
    path = fastmri_file("brain")
    scan = read(path)
    assert scan.acquisition.mask.shape == (1, 1, 32)
    assert (~scan.acquisition.mask).flatten().nonzero().flatten().tolist() == [0, 1, 30, 31]
    assert any("4 padded columns" in note for note in scan.notes)
    with h5py.File(path, "a") as file:
        file["kspace"][1, 0, 5, 0] = 1e-6
    scan = read(path)
    assert scan.acquisition.mask is None
    assert any("padded columns, but they hold data" in note for note in scan.notes)


def test_undersampled_brain_files_without_a_mask_are_read_off_the_zeros(fastmri_file):
    path = fastmri_file("brain")
    with h5py.File(path, "a") as file:
        file["kspace"][..., 5] = 0
    assert read(path).acquisition.mask is None


def test_test_files(fastmri_file):
    path = fastmri_file("test")
    scan = read(path)
    assert scan.reference is None
    assert scan.acquisition.matrix == (32, 32)
    mask = scan.acquisition.mask
    assert (mask.shape, mask.dtype) == ((1, 1, 48), torch.bool)
    assert mask.flatten().nonzero().flatten().tolist() == sorted({*range(0, 48, 4), 22, 23, 24, 25})
    assert scan.header["acceleration"] == 4
    assert not (scan.measurements[0] * ~mask[0]).any()


def test_mask_and_padding_meet(fastmri_file):
    path = change(fastmri_file("brain"), "mask", np.ones(32))
    assert read(path).acquisition.mask.sum() == 28


def test_header_and_geometry(fastmri_file):
    scan = read(fastmri_file("brain"))
    assert scan.header == {
        "acquisition": "AXT2",
        "field_strength": 2.8936,
        "imaging_frequency": 123.204951,
        "repetition_time": 2800,
        "echo_time": 22,
        "flip_angle": 140,
    }
    assert scan.geometry.spacing == pytest.approx((4.375, 4.375, 3))
    assert not scan.geometry.oriented
    np.testing.assert_allclose(scan.geometry.affine @ [15.5, 15.5, 1, 1], [0, 0, 0, 1], atol=1e-12)
    assert "SECRET" not in repr(scan.header) + repr(scan.notes)


def test_rows_and_columns_have_their_own_spacing(fastmri_file):
    path = header_with(fastmri_file("multi"), "<x>140</x><y>140</y>", "<x>160</x><y>128</y>")
    assert read(path).geometry.spacing == pytest.approx((4, 5, 3))


def test_narrow_scans_are_cropped_to_a_square(fastmri_file):
    path = change(fastmri_file("multi"), "reconstruction_rss", None)
    path = header_with(path, "<x>32</x><y>32</y>", "<x>60</x><y>60</y>")
    scan = read(path)
    assert scan.acquisition.matrix == (48, 48)
    assert any("asks for 60 x 60 pixels; the k-space allows 48 x 48" in note for note in scan.notes)


def test_without_header_the_reference_gives_the_size(fastmri_file):
    path = change(fastmri_file("multi"), "ismrmrd_header", None)
    scan = read(path)
    assert scan.acquisition.matrix == (32, 32)
    assert scan.geometry.spacing == (1, 1, 1)
    assert any("spacing of 1 mm assumed" in note for note in scan.notes)


def test_without_header_or_reference_it_is_no_fastmri_file(fastmri_file):
    path = change(change(fastmri_file("multi"), "ismrmrd_header", None), "reconstruction_rss", None)
    with Source(path) as source:
        assert not FastMRIReader().recognises(source)
    with Source(fastmri_file("single")) as source:
        assert FastMRIReader().recognises(source)
    text = path.with_name("x.h5")
    text.write_text("hello")
    with Source(text) as source:
        assert not FastMRIReader().recognises(source)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kspace", np.ones((3, 4, 64, 48)), r"type float64, expected complex numbers"),
        ("kspace", np.ones((64, 48), np.complex64), r"shape \(64, 48\)"),
        ("kspace", np.ones((0, 4, 64, 48), np.complex64), r"shape \(0, 4"),
        ("mask", np.ones(47), r"'mask' has shape \(47,\), expected \(48,\)"),
        ("mask", np.zeros(48), "selects no acquired column"),
        ("ismrmrd_header", "<broken", "not valid XML"),
        ("ismrmrd_header", np.arange(4), "not a single string"),
    ],
)
def test_wrong_contents_are_input_errors(fastmri_file, name, value, message):
    path = change(fastmri_file("multi"), name, value)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_kspace_in_another_file_is_refused(fastmri_file):
    path = fastmri_file("multi")
    with h5py.File(path, "a") as file:
        file.move("kspace", "moved")
        file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")
    with Source(path) as source:
        assert FastMRIReader().recognises(source)
    with pytest.raises(InputError, match="'kspace' is a link into another file"):
        read(path)
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file.create_dataset(
            "kspace", (3, 4, 64, 48), np.complex64, external=[("/etc/hostname", 0, 3 * 4 * 64 * 48 * 8)]
        )
    with pytest.raises(InputError, match="keeps its values in an external file"):
        read(path)


def test_a_key_that_is_not_there_is_an_input_error(fastmri_file):
    path = fastmri_file("multi")
    assert read(path, ReadOptions(key="/kspace")).format == "fastmri"
    with pytest.raises(InputError, match=r"has no dataset 'kspcae' \(--key\); found: ismrmrd_header, kspace"):
        read(path, ReadOptions(key="kspcae"))


def test_axes_are_not_needed(fastmri_file):
    assert "--axes was ignored" in read(fastmri_file("multi"), ReadOptions(axes="coil,y,x")).notes[0]


def test_a_reference_that_does_not_fit_is_left_out(fastmri_file):
    path = change(fastmri_file("multi"), "reconstruction_rss", np.ones((2, 32, 32), np.float32))
    scan = read(path)
    assert scan.reference is None
    assert any("'reconstruction_rss' was ignored" in note for note in scan.notes)


def test_the_heap_hang_ends(fastmri_file):
    path = fastmri_file("single")
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    # All the texts live in this heap; the object of free space at its end gets an impossible size.
    free = heap + 16
    while int.from_bytes(data[free : free + 2], "little"):
        free += 16 + -(-int.from_bytes(data[free + 8 : free + 16], "little") // 8) * 8
    data[free + 8 : free + 16] = bytes(8)
    path.write_bytes(data)
    start = time.monotonic()
    with pytest.raises(InputError, match="no answer within 1 s"):
        read(path, metadata_seconds=1.0)
    assert time.monotonic() - start < 25


def fuzz(path, rng, count):
    """Open ``count`` damaged versions of a file; return what came of each."""
    original = path.read_bytes()
    with h5py.File(path) as file:
        start = file["kspace"].id.get_offset()
        samples = range(start, start + file["kspace"].nbytes)
    structure = [place for place in range(len(original)) if place not in samples]  # damage where it counts
    outcomes = []
    for _ in range(count):
        data = bytearray(original)
        for place in rng.choice(structure, rng.integers(1, 9)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with Source(path, limits=QUICK) as source:
            try:
                if not FastMRIReader().recognises(source):
                    outcomes.append("not recognised")
                    continue
                scan = with_checks(FastMRIReader().read(source, ReadOptions()), "error")
                for index in range(len(scan.measurements)):
                    assert scan.measurements[index].shape == scan.measurements.shape
                if scan.reference is not None:
                    assert scan.reference[0].shape == scan.reference.shape
                outcomes.append("read")
            except (InputError, NumericalError) as error:
                outcomes.append(type(error).__name__)
                assert str(path) in str(error)  # noqa: PT017 -- any other exception fails the test by itself
    return outcomes


@pytest.mark.parametrize("kind", ["single", "multi", "brain", "test"])
def test_mutated_files_are_read_or_refused(fastmri_file, kind):
    assert len(fuzz(fastmri_file(kind), np.random.default_rng(list(kind.encode())), 5)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "multi", "brain", "test"])
def test_many_mutated_files_are_read_or_refused(fastmri_file, kind):
    assert "read" in fuzz(fastmri_file(kind), np.random.default_rng(7), 100)
