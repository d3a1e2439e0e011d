import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from medrecon.errors import InputError, UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.writers import write_image
from medrecon.io.writers.dicom_template import fitting_geometry, read_template, with_template_geometry

PERSON = {
    "PatientName": "Müller^Jörg", "PatientID": "4711", "PatientBirthDate": "19700101", "PatientSex": "M",
    "StudyDate": "20200202", "StudyTime": "101112", "StudyID": "77", "AccessionNumber": "A1",
    "ReferringPhysicianName": "Roe^Jane", "BodyPartExamined": "KNEE", "Laterality": "L", "PatientPosition": "HFS",
    "PatientComments": "not to be copied", "InstitutionName": "not to be copied",
}  # fmt: skip


def personalised(files, **changes):
    for file in files:
        # the fixture may be invalid on purpose
        data = pydicom.dcmread(file)
        for keyword, value in (PERSON | changes).items():
            setattr(data, keyword, value)
        data.save_as(file)


@pytest.fixture
def series(mr, tmp_path):
    folder = write_image(mr, tmp_path / "template.dcm")[0]
    personalised(folder.iterdir())
    return folder


def test_patient_study_and_frame_are_taken(mr, series, tmp_path):
    result, _ = write_image(mr, tmp_path / "out.dcm", template=series)
    old = pydicom.dcmread(next(series.iterdir()))
    for file in result.iterdir():
        new = pydicom.dcmread(file)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyID", "AccessionNumber"):
            assert str(new[keyword].value) == PERSON[keyword]
        assert (new.StudyInstanceUID, new.FrameOfReferenceUID) == (old.StudyInstanceUID, old.FrameOfReferenceUID)
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.SOPInstanceUID != old.SOPInstanceUID
        assert new.SeriesNumber >= 1000
        assert (new.BodyPartExamined, new.Laterality, new.PatientPosition) == ("KNEE", "L", "HFS")
        assert "PatientComments" not in new
        assert "InstitutionName" not in new


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dicom3tools")
@pytest.mark.parametrize("region", [("KNEE", "L"), ("KNEE", ""), ("BRAIN", ""), ("ELSEWHERE", "")])
def test_the_result_is_valid(mr, series, tmp_path, region):
    personalised(series.iterdir(), BodyPartExamined=region[0], Laterality=region[1])
    result, _ = write_image(mr, tmp_path / "out.dcm", template=series)
    file = sorted(result.iterdir())[0]
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


def test_nothing_of_the_person_in_the_sidecar(mr, series, tmp_path):
    _, sidecar = write_image(mr, tmp_path / "out.dcm", template=series)
    text = sidecar.read_text(encoding="utf-8")
    assert not any(value in text for value in ("ller", "4711", "1970", "Roe"))


def test_a_single_file_serves_as_well(series):
    assert read_template(sorted(series.iterdir())[0]).values["PatientID"] == "4711"


def test_an_irregular_series_still_identifies(mr, series):
    data = pydicom.dcmread(sorted(series.iterdir())[2])
    data.ImagePositionPatient = [0, 0, 5000]
    data.save_as(sorted(series.iterdir())[2])
    template = read_template(series)
    assert template.values["PatientID"] == "4711"
    assert template.grids == ()


def test_several_patients_are_refused(series):
    personalised(sorted(series.iterdir())[:1], PatientID="4712")
    with pytest.raises(InputError, match=r"several patients or studies \(PatientID differs\)") as caught:
        read_template(series)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("uid", ["../../../etc/x", "1.2.3.", "1" * 65])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_bad_uids_are_refused(series, uid, keyword):
    with pydicom.config.disable_value_validation():
        personalised(series.iterdir(), **{keyword: pydicom.uid.UID(uid, validation_mode=0)})
    with pytest.raises(InputError, match=f"{keyword} is not a valid UID"):
        read_template(series)


def test_values_against_the_standard_are_left_out(mr, series, tmp_path, caplog):
    with pydicom.config.disable_value_validation():
        personalised(series.iterdir(), PatientBirthDate="in the year 1970")
    result, _ = write_image(mr, tmp_path / "out.dcm", template=series)
    assert pydicom.dcmread(next(result.iterdir())).PatientBirthDate == ""
    assert "PatientBirthDate" in caplog.text
    assert "1970" not in caplog.text


def test_a_bad_series_uid_does_not_matter(mr, series, tmp_path):
    with pydicom.config.disable_value_validation():
        personalised(series.iterdir(), SeriesInstanceUID=pydicom.uid.UID("../../../etc/x", validation_mode=0))
    write_image(mr, tmp_path / "out.dcm", template=series)


class TestGeometry:
    def test_taken_over_on_request(self, mr, series):
        unplaced = replace(mr, geometry=Geometry.from_spacing((1, 1, 1), mr.array.shape))
        template = read_template(series)
        np.testing.assert_allclose(fitting_geometry(unplaced, template).affine, mr.geometry.affine, atol=1e-9)
        placed = with_template_geometry(unplaced, template)
        assert placed.geometry.oriented
        assert "template" in placed.provenance["geometry"]

    def test_only_for_an_image_without_a_place(self, mr, series):
        with pytest.raises(UsageError, match="known from its own file"):
            with_template_geometry(mr, read_template(series))

    def test_only_for_the_same_grid(self, mr, series):
        other = replace(mr, array=mr.array[:, :-1], geometry=Geometry(mr.geometry.affine, oriented=False))
        with pytest.raises(UsageError, match=r"one stack of 3x23x20 .* found 3x24x20"):
            with_template_geometry(other, read_template(series))

    def test_an_unplaced_image_stays_out_of_the_frame_of_reference(self, mr, series, tmp_path):
        unplaced = replace(mr, geometry=Geometry.from_spacing((1, 1, 1), mr.array.shape))
        result, _ = write_image(unplaced, tmp_path / "out.dcm", template=series)
        new, old = (pydicom.dcmread(next(folder.iterdir())) for folder in (result, series))
        assert new.FrameOfReferenceUID != old.FrameOfReferenceUID
