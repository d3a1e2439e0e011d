import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from medrecon.errors import UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.images import load_image
from medrecon.io.writers import write_image
from medrecon.io.writers.dicom import check_dicom, quantise, write_dicom

needs_dicom3tools = pytest.mark.skipif(
    shutil.which("dciodvfy") is None or shutil.which("dcentvfy") is None, reason="needs dicom3tools"
)


def complaints(files):
    """Errors of the validators; dciodvfy may print them and exit 0."""
    found = []
    for command in [["dciodvfy", str(file)] for file in files] + [["dcentvfy", *map(str, files)]]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        found += [line for line in lines if line.startswith("Error")]
        found += [f"exit status {done.returncode}"] * (done.returncode != 0)
    return found


def written(image, tmp_path, **options):
    return sorted(write_image(image, tmp_path / "scan.dcm", **options)[0].iterdir())


@needs_dicom3tools
@pytest.mark.parametrize("kind", ["mr", "ct"])
def test_validators_find_no_error(request, tmp_path, kind):
    assert complaints(written(request.getfixturevalue(kind), tmp_path)) == []


@needs_dicom3tools
@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("what", ["bare", "constant", "negative", "large", "one row"])
def test_validators_find_no_error_in_odd_images(tmp_path, modality, what):
    array = {
        "bare": np.arange(2 * 5 * 7).reshape(2, 5, 7) * 10,
        "constant": np.full((2, 5, 7), 0),
        "negative": np.arange(70).reshape(2, 5, 7) * 100 - 3000,
        "large": np.arange(70).reshape(2, 5, 7) * 900,
        "one row": np.arange(14).reshape(2, 1, 7) * 10,
    }[what]
    image = Image(array.astype(np.float32), Geometry.from_spacing((0.1234567890123, 1 / 3, 2), array.shape), modality)
    files = written(image, tmp_path)
    assert complaints(files) == []
    back = load_image(tmp_path / "scan")
    np.testing.assert_allclose(back.array, array, atol=0 if modality == "CT" else np.ptp(array) / 4095 / 1.99)
    np.testing.assert_allclose(back.geometry.affine, image.geometry.affine, atol=1e-12)


def test_pixels_and_affine_by_highdicom(mr, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    files = written(mr, tmp_path)
    volume = highdicom.get_volume_from_series([pydicom.dcmread(file) for file in files])
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    # highdicom's index order is (slice, row, column)
    reordered = (to_ras @ volume.affine)[:, [2, 1, 0, 3]]
    array = volume.array
    if not np.allclose(reordered, mr.geometry.affine, atol=1e-3):  # it counts slices from the other end
        array = array[::-1]
        reordered[:3, 3] += (len(array) - 1) * reordered[:3, 2]
        reordered[:3, 2] *= -1
    np.testing.assert_allclose(reordered, mr.geometry.affine, atol=1e-9)
    mapping = pydicom.dcmread(files[0]).RealWorldValueMappingSequence[0]
    values = array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    # highdicom may have applied the mapping itself
    best = min(np.abs(values - mr.array).max(), np.abs(array - mr.array).max())
    assert best <= mr.array.max() / 4095 / 2 * 1.001


def test_positions_are_those_of_the_voxels(mr, tmp_path):
    for index, file in enumerate(written(mr, tmp_path)):
        data = pydicom.dcmread(file)
        assert data.InstanceNumber == index + 1
        lps = np.diag([-1.0, -1.0, 1.0])
        expected = lps @ (mr.geometry.affine @ [0, 0, index, 1])[:3]
        np.testing.assert_allclose(np.array(data.ImagePositionPatient, float), expected, atol=1e-12)
        right = lps @ (mr.geometry.affine @ [1, 0, index, 1])[:3] - expected
        along = np.array(data.ImageOrientationPatient[:3], float) * float(data.PixelSpacing[1])
        np.testing.assert_allclose(along, right, atol=1e-12)
        stored = data.pixel_array
        assert stored[6, 13] == round(mr.array[index, 6, 13] / mr.array.max() * 4095)


def test_slices_against_the_normal_come_back_at_the_same_place(mr, tmp_path):
    affine = mr.geometry.affine.copy()
    affine[:3, 2] *= -1
    image = replace(mr, geometry=Geometry(affine))
    written(image, tmp_path)
    back = load_image(tmp_path / "scan")
    np.testing.assert_allclose(back.array[::-1], mr.array, atol=mr.array.max() / 8000)
    np.testing.assert_allclose(back.geometry.affine @ [3, 4, 2, 1], affine @ [3, 4, 0, 1], atol=1e-9)


class TestContent:
    def test_nothing_personal_is_made_up(self, mr, tmp_path):
        data = pydicom.dcmread(written(mr, tmp_path)[0])
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID"):
            assert not data[keyword].value

    def test_it_says_what_it_is(self, mr, tmp_path):
        data = pydicom.dcmread(written(mr, tmp_path)[0])
        assert list(data.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert "l1-wavelet" in data.DerivationDescription
        assert "not for diagnostic use" in data.DerivationDescription
        assert "not for diagnostic use" in data.SeriesDescription
        assert (data.RepetitionTime, data.FlipAngle, data.MagneticFieldStrength) == (2000, 90, 3)
        assert "orientation unknown" not in data.DerivationDescription

    def test_an_assumed_orientation_is_named(self, mr, tmp_path):
        image = replace(mr, geometry=Geometry.from_spacing((1, 1, 1), mr.array.shape))
        data = pydicom.dcmread(written(image, tmp_path)[0])
        assert "position and orientation unknown" in data.DerivationDescription

    def test_uids(self, mr, tmp_path):
        first = [pydicom.dcmread(file) for file in written(mr, tmp_path)]
        second = [pydicom.dcmread(file) for file in written(mr, tmp_path, overwrite=True)]
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            assert len({str(data[keyword].value) for data in first}) == 1
            assert first[0][keyword].value != second[0][keyword].value
        instances = {data.SOPInstanceUID for data in first + second}
        assert len(instances) == 6
        assert all(uid.is_valid for uid in instances)
        assert all(data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID for data in first)
        assert first[0].SeriesNumber >= 1000

    def test_numbers_are_at_most_16_characters(self, mr, tmp_path):
        data = pydicom.dcmread(written(mr, tmp_path)[0])
        for element in data:
            if element.VR == "DS" and element.value is not None:
                texts = element.value if element.VM > 1 else [element.value]
                assert all(len(str(text)) <= 16 for text in texts), element.keyword

    def test_the_window_shows_the_image(self, mr, ct, tmp_path):
        data = pydicom.dcmread(written(mr, tmp_path)[0])
        assert data.WindowCenter - data.WindowWidth / 2 == pytest.approx(0, abs=1)
        assert data.WindowCenter + data.WindowWidth / 2 == pytest.approx(4095, rel=0.05)
        data = pydicom.dcmread(written(ct, tmp_path / "ct")[0])
        assert data.WindowCenter - data.WindowWidth / 2 == pytest.approx(-1000, abs=20)

    def test_text_of_the_method_cannot_break_the_file(self, mr, tmp_path):
        image = replace(mr, provenance={"method": "a\\b\x00\n\u00e9" * 500})
        data = pydicom.dcmread(written(image, tmp_path)[0])
        assert "\\" not in data.DerivationDescription
        assert len(data.DerivationDescription) < 1024
        assert len(data.SeriesDescription) <= 64


class TestQuantisation:
    def test_mr_uses_twelve_bits(self, mr):
        pixels = quantise(mr)
        assert (pixels.stored.min(), pixels.stored.max(), pixels.bits) == (0, 4095, 12)

    def test_ct_is_whole_hounsfield_units(self, ct):
        pixels = quantise(ct)
        assert (pixels.slope, pixels.intercept, pixels.bits) == (1, -1024, 12)
        np.testing.assert_array_equal(pixels.stored.astype(np.float32) - 1024, ct.array)

    def test_metal_and_padding_are_not_clipped(self, ct):
        array = ct.array.copy()
        array[0, 0, :2] = [-3024, 20000]
        pixels = quantise(replace(ct, array=array))
        assert (pixels.intercept, pixels.bits) == (-3024, 16)
        np.testing.assert_array_equal(pixels.stored + pixels.intercept, array)


class TestRefusals:
    def test_other_modalities(self, mr, tmp_path):
        with pytest.raises(UsageError, match=r"MR and CT, got OT; write a \.nii\.gz"):
            write_image(replace(mr, modality="OT"), tmp_path / "a.dcm")
        assert list(tmp_path.iterdir()) == []

    def test_sheared_grids(self, mr, tmp_path):
        affine = mr.geometry.affine.copy()
        affine[:3, 2] += 0.1 * affine[:3, 0]
        with pytest.raises(UsageError, match="sheared"):
            write_image(replace(mr, geometry=Geometry(affine)), tmp_path / "a.dcm")

    @pytest.mark.parametrize("scale", [1e-4, 1e3])
    def test_attenuation_is_not_hounsfield(self, ct, tmp_path, scale):
        with pytest.raises(UsageError, match="Hounsfield"):
            check_dicom(replace(ct, array=ct.array * scale))

    def test_write_dicom_checks_by_itself(self, mr, tmp_path):
        with pytest.raises(UsageError):
            write_dicom(replace(mr, modality="US"), [tmp_path / "a.dcm"])
