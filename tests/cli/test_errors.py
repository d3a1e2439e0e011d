"""Bad input: the right exit code, a message that helps, no traceback, nothing half-written."""

import errno
import json
import sys

import h5py
import numpy as np
import pytest

from medrecon.cli import main


def fails(run, code, *words):
    found, out, err = run
    assert found == code, err
    assert out == ""
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    return err


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder / "x.nii.gz"
    assert not list(folder.iterdir()), "something was left behind"


@pytest.fixture
def kspace():
    generator = np.random.default_rng(0)
    return (generator.standard_normal((4, 32, 32)) + 1j * generator.standard_normal((4, 32, 32))).astype(np.complex64)


def test_missing_file(medrecon, target, tmp_path):
    fails(medrecon("reconstruct", tmp_path / "no.h5", "-o", target), 3, "no.h5")


def test_unknown_content(medrecon, target, tmp_path):
    path = tmp_path / "scan.h5"
    path.write_bytes(b"this is not HDF5" * 100)
    fails(medrecon("reconstruct", path, "-o", target), 3, "no known format")


def test_truncated_hdf5(medrecon, target, tmp_path, scan_file):
    path = tmp_path / "scan.h5"
    path.write_bytes(scan_file.read_bytes()[: scan_file.stat().st_size // 2])
    fails(medrecon("reconstruct", path, "-o", target), 3, "scan.h5")


def test_axes_are_asked_for(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", kspace)
    fails(medrecon("reconstruct", tmp_path / "k.npy", "-o", target), 3, "(4, 32, 32)", "--axes coil,y,x")


def test_wrong_axes(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", kspace)
    fails(medrecon("reconstruct", tmp_path / "k.npy", "--axes", "coil,y", "-o", target), 3, "--axes")
    fails(medrecon("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,foo", "-o", target), 3, "foo")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite(medrecon, target, tmp_path, kspace, value):
    kspace[1, 4, 5] = value
    np.save(tmp_path / "k.npy", kspace)
    command = ("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x")
    fails(medrecon(*command, "-o", target), 4, "coil 1", "--nonfinite zero")
    assert medrecon(*command, "--nonfinite", "zero", "-o", tmp_path / "ok.nii")[0] == 0


def test_all_zero(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", np.zeros_like(kspace))
    fails(medrecon("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x", "-o", target), 4, "zero")


def test_mask_that_keeps_nothing(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "m.npy", np.zeros(32))
    command = ("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x", "--mask", tmp_path / "m.npy")
    fails(medrecon(*command, "-o", target), 3, "m.npy")


def test_mask_of_another_size(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "m.npy", np.ones(31))
    command = ("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x", "--mask", tmp_path / "m.npy")
    fails(medrecon(*command, "-o", target), 3, "31", "32")


def test_maps_of_another_size(medrecon, target, tmp_path, kspace):
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "s.npy", np.ones((4, 16, 16), np.complex64))
    command = ("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x", "--maps", tmp_path / "s.npy")
    fails(medrecon(*command, "-o", target), 3, "16", "32")


def test_pickled_array(medrecon, target, tmp_path):
    np.save(tmp_path / "k.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    fails(medrecon("reconstruct", tmp_path / "k.npy", "-o", target), 3, "k.npy")


def test_external_link(medrecon, target, tmp_path, scan_file):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink(str(scan_file), "kspace")
        file["ismrmrd_header"] = np.bytes_(b"<x/>")
    fails(medrecon("reconstruct", tmp_path / "scan.h5", "-o", target), 3)


def test_declared_size_beyond_the_budget(medrecon, target, tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("kspace", (1000, 100, 4000, 4000), np.complex64, chunks=(1, 1, 64, 64))
        file["ismrmrd_header"] = np.bytes_(b"<x/>")
    fails(medrecon("reconstruct", tmp_path / "scan.h5", "-o", target), 3)


def test_no_calibration_lines(medrecon, target, tmp_path, kspace):
    kspace[:, :, ::2] = 0
    np.save(tmp_path / "k.npy", kspace)
    command = ("reconstruct", tmp_path / "k.npy", "--axes", "coil,y,x")
    fails(medrecon(*command, "-o", target), 3, "calibration", "--maps")
    assert medrecon(*command, "-m", "rss", "-o", tmp_path / "ok.nii")[0] == 0


def test_existing_output_stays(medrecon, scan_file, tmp_path):
    (tmp_path / "x.nii").write_text("precious")
    fails(medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / "x.nii"), 2, "--overwrite")
    assert (tmp_path / "x.nii").read_text() == "precious"
    assert medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / "x.nii", "--overwrite", "-q")[0] == 0


def test_output_below_a_file(medrecon, scan_file, tmp_path):
    (tmp_path / "file").write_text("x")
    assert medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / "file" / "x.nii")[0] in (1, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reconstrct", "x"), ("reconstruct",)),
        (("reconstruct", "SCAN", "-o", "x.nii", "--metod", "tv"), ("--method",)),
        (("reconstruct", "SCAN", "-o", "x.xyz"), ("xyz", ".nii")),
        (("reconstruct", "SCAN", "-o", "x.nii", "-m", "tvv"), ("tv",)),
        (("reconstruct", "SCAN", "-o", "x.nii", "-m", "tvv", "--dry-run"), ("tvv", "'tv'")),
        (("reconstruct", "SCAN", "-o", "x.nii", "-m", "rss", "--lambda", "1"), ("rss", "no parameters", "--lambda")),
        (("reconstruct", "SCAN", "-o", "x.nii", "-m", "rss", "--template-geometry"), ("--template",)),
        (("reconstruct", "SCAN", "-o", "x.nii", "-m", "tv", "--lambda", "-1"), ("regularization",)),
        (("reconstruct", "SCAN", "-o", "x.nii", "--slices", "9"), ("--slices 9", "2 slices")),
        (("reconstruct", "SCAN", "-o", "x.nii", "--slices", "a:b"), ("0:10",)),
        (("reconstruct", "SCAN", "-o", "x.nii", "--threads", "0"), ("--threads",)),
        (("reconstruct", "SCAN"), ("output",)),
        (("simulate", "SCAN", "--operator", "mri-cartesain-4x", "-o", "x.h5"), ("mri-cartesian-4x",)),
        (("simulate", "SCAN", "--operator", "mri-cartesian-4x", "-o", "x.nii"), (".h5",)),
    ],
)
def test_usage(medrecon, scan_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = medrecon(*(scan_file if argument == "SCAN" else argument for argument in arguments))
    assert code == 2, err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


def test_cuda_where_there_is_none(medrecon, scan_file, target, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    fails(medrecon("reconstruct", scan_file, "-o", target, "--device", "cuda"), 2, "--device cpu")


def test_one_bad_volume_does_not_stop_the_rest(medrecon, scan_file, tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"x" * 100)
    code, out, err = medrecon(
        "reconstruct", tmp_path / "bad.h5", scan_file, "-m", "rss", "-o", f"{tmp_path}/out/", "--json"
    )
    assert code == 6
    assert "1 of 2" in err
    results = json.loads(out)
    assert "error" in results[0]
    assert results[1]["method"] == "rss"


def test_two_inputs_one_output(medrecon, scan_file, tmp_path):
    fails(medrecon("reconstruct", scan_file, scan_file, "-o", tmp_path / "x.nii"), 2, "folder")


def test_evaluate_mismatch(medrecon, scan_file, tmp_path):
    assert medrecon("reconstruct", scan_file, "-m", "rss", "--slices", "0", "-o", tmp_path / "x.nii", "-q")[0] == 0
    fails(medrecon("evaluate", tmp_path / "x.nii", "-r", scan_file), 3, "do not match")
    assert medrecon("evaluate", tmp_path / "x.nii", "-r", scan_file, "--reference-slices", "0")[0] == 0


def test_images_without_reference_are_named(medrecon, scan_file, tmp_path):
    for name in ("a", "b"):
        assert medrecon("reconstruct", scan_file, "-m", "rss", "-o", tmp_path / "images" / f"{name}.nii", "-q")[0] == 0
    (tmp_path / "truths").mkdir()
    (tmp_path / "truths" / "a.h5").symlink_to(scan_file)
    code, out, err = medrecon("evaluate", tmp_path / "images", "-r", tmp_path / "truths")
    assert code == 0
    assert "a.nii" in out
    assert "b.nii" in err


def test_info_takes_what_its_message_names(medrecon, tmp_path, kspace):
    kspace[0, 3, 4] = np.nan
    np.save(tmp_path / "k.npy", kspace)
    command = ("info", tmp_path / "k.npy", "--axes", "coil,y,x")
    fails(medrecon(*command), 4, "--nonfinite zero")
    assert medrecon(*command, "--nonfinite", "zero")[0] == 0


def test_unexpected_error_is_owned(medrecon, scan_file, target, monkeypatch):
    def explode(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("medrecon.reconstructors.volume.reconstruct_scan", explode)
    fails(medrecon("reconstruct", scan_file, "-o", target), 1, "ZeroDivisionError", "report")


@pytest.mark.parametrize(("error", "code"), [(MemoryError(), 5), (KeyboardInterrupt(), 130)])
def test_memory_and_interrupt(medrecon, scan_file, target, monkeypatch, error, code):
    def explode(*_, **__):
        raise error

    monkeypatch.setattr("medrecon.reconstructors.volume.reconstruct_scan", explode)
    err = fails(medrecon("reconstruct", scan_file, "-o", target), code)
    assert "interrupted" in err or "out of memory" in err


def test_an_input_is_never_overwritten(medrecon, scan_file, tmp_path):
    path = tmp_path / "raw.h5"
    path.write_bytes(scan_file.read_bytes())
    (tmp_path / "link.h5").symlink_to(path)
    for arguments in (
        ("reconstruct", path, "-m", "rss", "-o", path),
        ("reconstruct", path, "-m", "rss", "-o", f"{tmp_path}/", "--format", "hdf5"),
        ("reconstruct", scan_file, "--mask", path, "-o", tmp_path / "link.h5"),
        ("simulate", path, "--operator", "mri-cartesian-4x", "-o", path),
    ):
        fails(medrecon(*arguments, "--overwrite"), 2, "is one of the inputs")
    assert path.read_bytes() == scan_file.read_bytes()


def test_a_missing_template_is_noticed_before_the_work(medrecon, scan_file, target, tmp_path, monkeypatch):
    monkeypatch.delattr("medrecon.reconstructors.volume.reconstruct_scan")
    fails(medrecon("reconstruct", scan_file, "-o", target.with_name("x.dcm"), "--template", tmp_path / "no"), 3, "no")


def test_closed_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert main(["methods"]) == 0
    sys.stdout.close()  # where the output went instead


def test_disk_full(medrecon, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("medrecon.cli.methods.print_table", full)
    fails(medrecon("methods"), 1, "No space left", "free some space")


def test_values_below_zero_are_mentioned(medrecon, tmp_path):
    np.save(tmp_path / "ct.npy", np.linspace(-1000, 500, 64 * 64, dtype=np.float32).reshape(1, 64, 64))
    code, _, err = medrecon("simulate", tmp_path / "ct.npy", "--operator", "mri-cartesian-4x", "-o", tmp_path / "x.h5")
    assert code == 0, err
    assert "below 0" in err
