import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medrecon.errors import MedreconError, NumericalError, UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.images import load_image
from medrecon.io.writers import plan_output, registry, source_stem, write_image

SUFFIXES = [".nii", ".nii.gz", ".h5", ".npz", ".png", ".dcm"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("scan.nii.gz", "scan"), ("scan.h5", "scan"), ("my.knee.h5", "my.knee"), ("scan", "scan"), ("a b/ç.dcm", "_"),
        ("..", "image"), (".h5", "image"), ("file1000031_v2.h5", "file1000031_v2"), ("x;rm -rf.cfl", "x_rm_-rf"),
    ],
)  # fmt: skip
def test_stems_are_harmless(name, stem):
    assert source_stem(Path(name)) == stem


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffix_names_the_format(tmp_path, suffix):
    plan = plan_output(tmp_path / f"out.v2{suffix}", "scan")
    assert plan.path == tmp_path / f"out.v2{suffix}"
    assert plan.sidecar == tmp_path / "out.v2.json"


@pytest.mark.parametrize("target", ["new/", "new.folder/", "new", "."])
def test_folders_get_the_name_of_the_input(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    assert plan_output(target, "scan").path == Path(target) / "scan.nii.gz"
    assert plan_output(target, "scan", format="dicom").path == Path(target) / "scan.dcm"


def test_the_name_of_the_input_cannot_lead_elsewhere(tmp_path):
    assert plan_output(tmp_path, "../../etc/passwd").path.parent == tmp_path
    assert plan_output(tmp_path, "..").path.parent == tmp_path


def test_unknown_and_contradicting_suffixes(tmp_path):
    with pytest.raises(UsageError, match=r"'\.mha'; expected .*\.nii"):
        plan_output(tmp_path / "a.mha", "scan")
    with pytest.raises(UsageError, match="says nifti, but dicom"):
        plan_output(tmp_path / "a.nii", "scan", format="dicom")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_image_and_sidecar(mr, tmp_path, suffix):
    result, sidecar = write_image(mr, tmp_path / "sub" / f"out{suffix}")
    record = json.loads(sidecar.read_text())
    names = [entry.name for entry in sorted(result.iterdir())] if suffix == ".dcm" else [result.name]
    assert record["files"] == names
    assert {entry.name for entry in (tmp_path / "sub").iterdir()} == {result.name, "out.json"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".h5", ".npz", ".dcm"])
@pytest.mark.parametrize("shape", [(1, 24, 20), (3, 23, 19)])
def test_every_format_comes_back(mr, tmp_path, suffix, shape):
    image = replace(mr, array=mr.array[: shape[0], : shape[1], : shape[2]])
    back = load_image(write_image(image, tmp_path / f"out{suffix}")[0])
    step = float(image.array.max()) / 4095 / 2 if suffix == ".dcm" else 0
    np.testing.assert_allclose(back.array, image.array, rtol=0, atol=step * 1.001)
    np.testing.assert_allclose(back.geometry.affine, image.geometry.affine, rtol=1e-6, atol=1e-5)
    assert back.modality == "MR"


def test_without_a_sidecar(mr, tmp_path):
    assert write_image(mr, tmp_path / "a.png", sidecar=False) == [tmp_path / "a.png"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_one_slice_is_one_dicom_file(mr, tmp_path):
    result, _ = write_image(replace(mr, array=mr.array[:1]), tmp_path / "a.dcm")
    assert result == tmp_path / "a.dcm"
    assert result.is_file()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_output_needs_the_flag(mr, tmp_path, suffix):
    write_image(mr, tmp_path / f"a{suffix}")
    with pytest.raises(UsageError, match="--overwrite"):
        write_image(mr, tmp_path / f"a{suffix}")
    shorter = replace(mr, array=mr.array[:2])
    result, sidecar = write_image(shorter, tmp_path / f"a{suffix}", overwrite=True)
    assert json.loads(sidecar.read_text())["geometry"]["shape"][0] == 2
    if suffix == ".dcm":
        assert len(list(result.iterdir())) == 2


def test_a_foreign_sidecar_is_not_replaced(mr, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UsageError, match=r"a\.json: exists"):
        write_image(mr, tmp_path / "a.nii.gz")
    assert (tmp_path / "a.json").read_text() == "{}"


def test_the_plan_is_checked_before_the_work(tmp_path):
    (tmp_path / "a.dcm").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="--overwrite"):
        plan_output(tmp_path / "a.dcm", "scan").check()
    plan_output(tmp_path / "a.dcm", "scan").check(slices=3)  # becomes the folder `a`
    with pytest.raises(UsageError, match="is a file"):
        plan_output(tmp_path / "file" / "a.nii", "scan").check()
    plan_output(tmp_path / "new" / "a.nii", "scan").check()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.dcm", "file"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_refused_before_anything_is_written(mr, tmp_path, suffix, value):
    array = mr.array.copy()
    array[1, 2, 3] = value
    with pytest.raises(NumericalError, match="slice 2 of 3 has 1 values"):
        write_image(replace(mr, array=array), tmp_path / "new" / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(mr, tmp_path, suffix, monkeypatch):
    written = registry.write_dicom, registry._write_file

    def full(*arguments):
        (written[0] if isinstance(arguments[1], list) else written[1])(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry, "write_dicom" if suffix == ".dcm" else "_write_file", full)
    with pytest.raises(MedreconError, match="No space left on device"):
        write_image(mr, tmp_path / "new" / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".nii", ".dcm"])
def test_a_failing_sidecar_takes_the_image_with_it(mr, tmp_path, suffix, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(registry, "write_sidecar", failing)
    with pytest.raises(MedreconError, match="Input/output"):
        write_image(mr, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_former_result(mr, tmp_path, monkeypatch):
    write_image(mr, tmp_path / "a.nii")
    former = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(registry, "write_sidecar", failing)
    with pytest.raises(MedreconError):
        write_image(replace(mr, array=mr.array * 2), tmp_path / "a.nii", overwrite=True)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == former


class TestDtype:
    def test_complex_values_stay_where_they_can(self, mr, tmp_path):
        image = replace(mr, array=(mr.array * np.exp(0.5j)).astype(np.complex64))
        assert load_image(write_image(image, tmp_path / "a.nii")[0]).array.dtype == np.complex64
        for suffix in (".h5", ".dcm", ".png"):
            write_image(image, tmp_path / f"b{suffix}", sidecar=False)
        np.testing.assert_allclose(load_image(tmp_path / "b.h5").array, mr.array, rtol=1e-6)

    def test_magnitude_on_request(self, mr, tmp_path):
        image = replace(mr, array=(mr.array * np.exp(0.5j)).astype(np.complex64))
        back = load_image(write_image(image, tmp_path / "a.nii", dtype="float32")[0])
        np.testing.assert_allclose(back.array, mr.array, rtol=1e-6)

    def test_complex_where_there_is_none(self, mr, tmp_path):
        with pytest.raises(UsageError, match="this image is real"):
            write_image(mr, tmp_path / "a.nii", dtype="complex64")
        with pytest.raises(UsageError, match="hold real values"):
            write_image(replace(mr, array=mr.array * 1j), tmp_path / "a.h5", dtype="complex64")


class TestTemplateOptions:
    @pytest.fixture
    def series(self, mr, tmp_path):
        return write_image(mr, tmp_path / "template.dcm")[0]

    def test_a_template_is_for_dicom(self, mr, tmp_path, series):
        with pytest.raises(UsageError, match="--template is for DICOM"):
            write_image(mr, tmp_path / "a.nii", template=series)
        with pytest.raises(UsageError, match="name it with --template"):
            write_image(mr, tmp_path / "a.nii", template_geometry=True)

    def test_the_geometry_goes_into_any_format(self, mr, tmp_path, series):
        image = replace(mr, geometry=Geometry.from_spacing((1.2, 0.9, 3.0), mr.array.shape))
        result, sidecar = write_image(image, tmp_path / "a.nii", template=series, template_geometry=True)
        back = load_image(result)
        assert back.geometry.oriented
        np.testing.assert_allclose(back.geometry.affine, mr.geometry.affine, atol=1e-4)
        assert "template" in json.loads(sidecar.read_text())["provenance"]["geometry"]

    def test_a_fitting_geometry_is_offered_not_taken(self, mr, tmp_path, series, caplog):
        image = replace(mr, geometry=Geometry.from_spacing((1.2, 0.9, 3.0), mr.array.shape))
        result, _ = write_image(image, tmp_path / "a.dcm", template=series)
        assert "--template-geometry" in caplog.text
        np.testing.assert_allclose(load_image(result).geometry.affine, image.geometry.affine, atol=1e-6)
