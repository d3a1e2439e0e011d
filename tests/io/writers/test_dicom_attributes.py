import pytest

from medrecon.io.writers.dicom_attributes import fill_attributes, new_identity, plain
from medrecon.io.writers.dicom_template import Template

pydicom = pytest.importorskip("pydicom")


def filled(image, **values):
    template = Template({"StudyInstanceUID": "1.2.3", **values}, "1.2.4")
    data = pydicom.Dataset()
    fill_attributes(data, image, new_identity(template, oriented=True), template)
    return data


def test_identity_joins_the_study_but_not_the_series(mr):
    template = Template({"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.9"}, "1.2.4")
    identity = new_identity(template, oriented=True)
    assert (identity.study, identity.frame_of_reference) == ("1.2.3", "1.2.4")
    assert identity.series != "1.2.9"
    # an image whose place is unknown is in nobody's frame of reference
    assert new_identity(template, oriented=False).frame_of_reference != "1.2.4"


@pytest.mark.parametrize(
    ("part", "side", "expected"),
    [
        ("BRAIN", "", ("BRAIN", None)), ("BRAIN", "R", ("BRAIN", None)), ("KNEE", "L", ("KNEE", "L")),
        ("KNEE", "", (None, "")), ("SOMETHING", "", (None, "")), ("", "R", (None, "R")),
    ],
)  # fmt: skip
def test_laterality_follows_the_body_part(mr, part, side, expected):
    data = filled(mr, BodyPartExamined=part, Laterality=side)
    assert (data.get("BodyPartExamined"), data.get("Laterality")) == expected


def test_deidentification_is_told_completely_or_not_at_all(mr):
    assert "PatientIdentityRemoved" not in filled(mr, PatientIdentityRemoved="YES")
    assert filled(mr, PatientIdentityRemoved="YES", DeidentificationMethod="x").PatientIdentityRemoved == "YES"


def test_only_allowed_fields_are_taken(mr):
    data = filled(mr, PatientComments="secret", PatientName="Doe^Jane")
    assert "PatientComments" not in data
    assert str(data.PatientName) == "Doe^Jane"


def test_plain_text():
    assert plain(" a\\b\nc\u00e9d ", 3) == "ab"
