from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from medrecon.errors import InputError
from medrecon.io.dicom_series import find_series, load_series
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.writers import write_image

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
SERIES = BUNDLED / "dicomdirtests"


def edit(file, **changes):
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(file)
        for keyword, value in changes.items():
            if value is None:
                del data[keyword]
            else:
                setattr(data, keyword, value)
        data.save_as(file)


@pytest.fixture
def image():
    array = (np.arange(4 * 6 * 5).reshape(4, 6, 5) * 10 - 1000).astype(np.float32)
    return Image(array, Geometry(np.array([[-2.0, 0, 0, 9], [0, -3, 0, 8], [0, 0, 4, -7], [0, 0, 0, 1]])), "CT")


@pytest.fixture
def series(image, tmp_path):
    return write_image(image, tmp_path / "scan.dcm", sidecar=False)[0]


@pytest.fixture
def files(series):
    return sorted(series.iterdir())


class TestRealSeries:
    def test_ct5n_has_the_exact_affine(self):
        image = load_series(SERIES / "98892001/CT5N")
        expected = [[-0.488281, 0, 0, 72.199997], [0, -0.488281, 0, 143.0], [0, 0, 2.5, -1.2375], [0, 0, 0, 1]]
        np.testing.assert_allclose(image.geometry.affine, expected, rtol=0, atol=1e-12)
        assert (image.array.shape, image.modality, image.geometry.oriented) == ((5, 16, 16), "CT", True)

    def test_ct5n_agrees_with_highdicom(self):
        highdicom = pytest.importorskip("highdicom")
        files = [pydicom.dcmread(file) for file in (SERIES / "98892001/CT5N").iterdir()]
        volume = highdicom.get_volume_from_series(files)
        image = load_series(SERIES / "98892001/CT5N")
        array = volume.array if volume.affine[2, 0] > 0 else volume.array[::-1]
        np.testing.assert_allclose(image.array, array)

    def test_ct2_names_the_gap(self):
        with pytest.raises(InputError, match=r"a gap of 202\.5 mm .* where 1\.25 mm is usual"):
            load_series(SERIES / "77654033/CT2")

    @pytest.mark.parametrize(
        ("folder", "message"),
        [
            ("98892003/MR700", "holds 7 stacks, not one: orientations differ"),
            ("98892003/MR2", "holds 7 stacks, not one: series and orientations differ"),
            ("98892001/CT2N", "holds 2 stacks, not one: orientations differ .*--key"),
        ],
    )
    def test_mixed_planes_are_no_volume(self, folder, message):
        with pytest.raises(InputError, match=message):
            load_series(SERIES / folder)

    def test_a_key_picks_a_stack(self):
        image = load_series(SERIES / "98892001/CT2N", key="2")
        assert image.array.shape == (1, 16, 16)
        assert image.geometry.spacing == pytest.approx((0.596847, 0.545455, 650.181824))
        with pytest.raises(InputError, match="no stack '3'; there is 1: series 4"):
            load_series(SERIES / "98892001/CT2N", key="3")

    def test_a_single_slice_takes_its_thickness(self):
        image = load_series(BUNDLED / "CT_small.dcm")
        assert image.geometry.spacing == pytest.approx((0.661468, 0.661468, 5.0))
        stored = pydicom.dcmread(BUNDLED / "CT_small.dcm").pixel_array
        np.testing.assert_array_equal(image.array[0], stored.astype(np.float32) - 1024)

    @pytest.mark.parametrize("twin", ["bigendian", "implicit", "expb", "RLE", "padded"])
    def test_encodings_agree(self, twin):
        plain, other = (load_series(BUNDLED / f"MR_small{name}.dcm") for name in ("", f"_{twin}"))
        np.testing.assert_array_equal(plain.array, other.array)
        np.testing.assert_array_equal(plain.geometry.affine, other.geometry.affine)
        assert plain.header["repetition_time"] == 4000

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("MR_truncated.dcm", "damaged DICOM file: pixel data of 8192 bytes"),
            ("rtplan.dcm", "without pixel data"),
            ("rtdose.dcm", "multi-frame DICOM image .15 frames.*dcm2niix"),
            ("liver_1frame.dcm", "multi-frame DICOM image"),
            ("examples_rgb_color.dcm", "colour DICOM"),
            ("image_dfl.dcm", "deflated"),
            ("JPEG-lossy.dcm", "encoded as JPEG Extended.*pylibjpeg"),
        ],
    )
    def test_what_is_not_read_says_why(self, name, message):
        with pytest.raises(InputError, match=message):
            load_series(BUNDLED / name)

    def test_siemens(self):
        nibabel = pytest.importorskip("nibabel")
        folder = Path(nibabel.__file__).parent / "tests" / "data"
        image = load_series(folder / "0.dcm")
        data = pydicom.dcmread(folder / "0.dcm")
        corner = image.geometry.affine @ [0, 0, 0, 1]
        np.testing.assert_allclose(corner[:3] * [-1, -1, 1], np.array(data.ImagePositionPatient, float))


class TestOrder:
    def test_by_position_not_by_name_or_number(self, image, series, files):
        for number, file in enumerate(reversed(files)):
            edit(file, InstanceNumber=(number * 7) % 4)
            file.rename(series / f"{(number * 3) % 4}.ima")
        back = load_series(series)
        np.testing.assert_array_equal(back.array, image.array)
        np.testing.assert_allclose(back.geometry.affine, image.geometry.affine, atol=1e-12)

    def test_rounded_positions_are_regular(self, series, files):
        edit(files[1], ImagePositionPatient=[-9, -8, -3.005])
        assert load_series(series).geometry.spacing[2] == pytest.approx(4)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ImagePositionPatient": [-9, -8, -2.5]}, r"gap of 4\.5 mm|gap of 3\.5 mm"),
            ({"ImagePositionPatient": [-9, -8, -7]}, "lie at the same position"),
            ({"ImagePositionPatient": [-9, -7, -3]}, "straight line"),
            ({"ImagePositionPatient": None}, "have no order"),
            ({"ImagePositionPatient": ["1", "2"]}, "have no order"),
            ({"PixelSpacing": [1, 1]}, "PixelSpacing differs"),
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0.5, 0.5]}, "perpendicular unit vectors"),
            ({"SeriesInstanceUID": "1.2.3"}, "2 stacks, not one: series differ"),
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "2 stacks, not one: orientations differ"),
        ],
    )
    def test_irregular_stacks_are_refused(self, series, files, changes, message):
        edit(files[1], **changes)
        with pytest.raises(InputError, match=message):
            load_series(series)

    def test_a_tilted_gantry_keeps_its_shear(self, series, files):
        for index, file in enumerate(files):
            edit(file, ImagePositionPatient=[-9, -8 + index, -7 + 4 * index])
        affine = load_series(series).geometry.affine
        np.testing.assert_allclose(affine[:3, 2], [0, -1, 4])

    def test_one_matrix(self, image, series, files):
        data = pydicom.dcmread(files[0])
        data.Rows, data.PixelData = 3, data.PixelData[:30]
        data.save_as(files[0])
        with pytest.raises(InputError, match="2 stacks, not one: matrices differ"):
            load_series(series)


class TestFolders:
    def test_other_files_are_passed_over(self, image, series):
        (series / "notes.txt").write_text("x")
        (series / ".hidden").write_text("x")
        (series / "plan.dcm").write_bytes((BUNDLED / "rtplan.dcm").read_bytes())
        np.testing.assert_array_equal(load_series(series).array, image.array)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(InputError, match="no DICOM image among its 0 files"):
            load_series(tmp_path)

    def test_a_damaged_slice_is_not_left_out(self, series, files):
        files[3].write_bytes(files[3].read_bytes()[:-20])
        with pytest.raises(InputError, match=r"scan_0004\.dcm: damaged DICOM"):
            load_series(series)

    def test_the_budget_counts_all_slices(self, series):
        with pytest.raises(InputError, match="--max"):
            load_series(series, max_bytes=200)


class TestHostile:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"Rows": 0}, "not an image: 0 rows"),
            ({"Rows": 60000}, "truncated: 60 bytes of pixel data"),
            ({"BitsAllocated": 12}, "12 bits"),
            ({"SamplesPerPixel": 3}, "colour"),
            ({"NumberOfFrames": "4"}, r"multi-frame DICOM image \(4 frames\)"),
            ({"Columns": None}, "0 columns"),
        ],
    )
    def test_headers_that_do_not_fit(self, files, changes, message):
        edit(files[0], **changes)
        with pytest.raises(InputError, match=message):
            load_series(files[0])

    def test_nested_sequences(self, files):
        data = pydicom.dcmread(files[0])
        inner = pydicom.Dataset()
        for _ in range(40):
            outer = pydicom.Dataset()
            outer.ReferencedImageSequence = [inner]
            inner = outer
        data.ReferencedImageSequence = [inner]
        data.save_as(files[0])
        with pytest.raises(InputError, match="nested more than 16 deep"):
            load_series(files[0])

    def test_a_bad_uid_is_only_a_label(self, series, files, image):
        for file in files:
            edit(file, SeriesInstanceUID=pydicom.uid.UID("../../../etc/x", validation_mode=0))
        np.testing.assert_array_equal(load_series(series).array, image.array)

    def test_odd_values_are_ignored_and_not_quoted(self, files, caplog):
        edit(files[0], PatientBirthDate="Jane Doe")
        sound = files[0].read_bytes()
        assert sound.count(b"\x18\x00\x50\x00DS\x04\x004.0 ") == 1
        files[0].write_bytes(sound.replace(b"\x18\x00\x50\x00DS\x04\x004.0 ", b"\x18\x00\x50\x00DS\x04\x00xx  "))
        image = load_series(files[0])
        assert "slice_thickness" not in image.header
        assert image.geometry.spacing[2] == 1
        assert "Doe" not in caplog.text

    def test_no_personal_field_is_loaded(self, files):
        edit(files[0], PatientName="Doe^Jane", PatientID="4711")
        image = load_series(files[0])
        assert "Doe" not in repr((image.provenance, image.header))
        assert "4711" not in repr((image.provenance, image.header))

    def test_mutations_give_a_result_or_an_input_error(self, files):
        """Not a fuzzer, but every run tries some damage."""
        generator = np.random.default_rng(5)
        sound = files[0].read_bytes()
        outcomes = set()
        for _ in range(150):
            damaged = bytearray(sound)
            for at in generator.integers(128, len(sound), generator.integers(1, 9)):
                damaged[at] = generator.integers(256)
            files[0].write_bytes(damaged)
            try:
                load_series(files[0])
                outcomes.add("read")
            except InputError:
                outcomes.add("refused")
        assert outcomes == {"read", "refused"}


def test_identifiers_only_for_templates(files):
    edit(files[0], PatientID="4711")
    (stack,) = find_series(files[0])
    assert stack.slices[0].header["PatientID"] == "4711"
    (stack,) = find_series(files[0], identifiers=False)
    assert "PatientID" not in stack.slices[0].header
