import os
import stat
from pathlib import Path

import pytest

from medrecon.errors import UsageError
from medrecon.io.writers.atomic import atomic_folder, atomic_path, check_writable

OWNED = r"scan_\d{4}\.dcm"


def test_a_file_appears_complete_at_the_end(tmp_path):
    target = tmp_path / "new" / "deep" / "image.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert [entry.name for entry in target.parent.iterdir()] == ["image.nii.gz"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    (tmp_path / "b.txt").write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing_not_even_folders(tmp_path, failure):
    def interrupted():
        with atomic_path(tmp_path / "new" / "image.npz") as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_former_file(tmp_path):
    target = tmp_path / "image.npz"
    target.write_text("former")

    def failing():
        with atomic_path(target, overwrite=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert target.read_text() == "former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.npz"]


def test_overwriting_needs_the_flag(tmp_path):
    target = tmp_path / "image.npz"
    target.write_text("former")
    with pytest.raises(UsageError, match="--overwrite"), atomic_path(target):
        pytest.fail("the block must not run")
    with atomic_path(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_file_that_came_into_being_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "image.npz"

    def race():
        with atomic_path(target) as temporary:
            temporary.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(UsageError, match="--overwrite"):
        race()
    assert target.read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.npz"]


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "image.npz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--overwrite"), atomic_path(tmp_path / "image.npz"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("check", [check_writable, lambda target: atomic_path(target).__enter__()])
def test_a_file_in_place_of_a_folder(tmp_path, check):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, but the output needs a folder"):
        check(tmp_path / "file" / "image.npz")


@pytest.mark.parametrize("check", [check_writable, lambda target: atomic_path(target).__enter__()])
def test_an_unwritable_folder(tmp_path, check):
    # /proc refuses new files even to root
    folder = Path("/proc") if Path("/proc/self").exists() else tmp_path / "closed"
    if folder.parent == tmp_path:
        folder.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        check(folder / "image.npz")
    with pytest.raises(UsageError, match="cannot be written to"):
        check(folder / "new" / "image.npz")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        check_writable(closed / "image.npz")


def test_devices_and_folders_are_no_targets(tmp_path):
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        check_writable(Path("/dev/null"), overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        check_writable(tmp_path, overwrite=True)


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "new" / "image.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_complete_at_the_end(tmp_path):
    target = tmp_path / "new" / "scan"
    with atomic_folder(target, OWNED) as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        (folder / "scan_0001.dcm").write_text("1")
        assert not target.exists()
    assert [entry.name for entry in target.iterdir()] == ["scan_0001.dcm"]
    assert [entry.name for entry in target.parent.iterdir()] == ["scan"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def failing():
        with atomic_folder(tmp_path / "new" / "scan", OWNED) as folder:
            (folder / "scan_0001.dcm").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_series_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "scan"
    target.mkdir()
    for name in ("scan_0001.dcm", "scan_0002.dcm"):
        (target / name).write_text("former")
    with pytest.raises(UsageError, match="--overwrite"), atomic_folder(target, OWNED):
        pytest.fail("the block must not run")
    with atomic_folder(target, OWNED, overwrite=True) as folder:
        (folder / "scan_0001.dcm").write_text("new")
    assert {entry.name: entry.read_text() for entry in target.iterdir()} == {"scan_0001.dcm": "new"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan"]


def test_foreign_files_are_never_deleted(tmp_path):
    target = tmp_path / "scan"
    target.mkdir()
    (target / "IM0001.dcm").write_text("precious")
    with pytest.raises(UsageError, match="will not be deleted"), atomic_folder(target, OWNED, overwrite=True):
        pytest.fail("the block must not run")
    assert (target / "IM0001.dcm").read_text() == "precious"


def test_a_failing_replacement_restores_the_earlier_series(tmp_path, monkeypatch):
    target = tmp_path / "scan"
    target.mkdir()
    (target / "scan_0001.dcm").write_text("former")
    rename = Path.rename

    def failing(self, to):
        if self.name == "result":
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)

    def write():
        with atomic_folder(target, OWNED, overwrite=True) as folder:
            (folder / "scan_0001.dcm").write_text("new")

    with pytest.raises(OSError, match="Input/output"):
        write()
    assert (target / "scan_0001.dcm").read_text() == "former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scan"]
