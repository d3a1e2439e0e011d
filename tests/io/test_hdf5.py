import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from medrecon.errors import InputError
from medrecon.io import _hdf5_process
from medrecon.io.hdf5 import Hdf5File, Limits, shown

QUICK = Limits(metadata_seconds=3.0)


@pytest.fixture
def plain(tmp_path):
    """File with one of everything that may be read."""
    path = tmp_path / "plain.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["k"] = (rng.standard_normal((3, 4, 5)) + 1j).astype(np.complex64)
        file["group/matlab"] = np.array([(1.0, 2.0), (3.0, -4.0)], dtype=[("real", "<f8"), ("imag", "<f8")])
        file["group/raw"] = np.array([(1, 2)], dtype=[("r", "<i2"), ("i", "<i2")])
        file["big"] = np.arange(6, dtype=">f4").reshape(2, 3)
        file["flag"] = np.array([True, False])
        file["scalar"] = np.float64(2.5)
        file["text"] = "grüße"
        file["fixed"] = np.bytes_(b"abc")
        file.create_dataset(
            "chunked", data=np.arange(100, dtype=np.int16).reshape(10, 10), chunks=(1, 10), compression="gzip"
        )
        file["other/data"] = np.arange(3)
        file["alias"] = h5py.SoftLink("/group/matlab")
        file["table"] = np.zeros(2, dtype=[("a", "<i4"), ("b", "<f4", (3,))])
        file.attrs["name"] = "x"
        file.attrs["values"] = np.arange(3)
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["long"] = np.zeros(5000)
        file["group"].attrs["fixed"] = np.bytes_(b"q")
    return path


@pytest.fixture
def process_count():
    """Number of children of this process that run the reader."""

    def count() -> int:
        listing = Path("/proc").glob("[0-9]*/stat")
        found = 0
        for entry in listing:
            try:
                words = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found += int(words[1]) == os.getpid()
        return found

    return count


def test_reads_values_types_and_attributes(plain):
    with Hdf5File(plain) as file, h5py.File(plain) as truth:
        assert file.datasets["k"].shape == (3, 4, 5)
        assert file.datasets["k"].nbytes == 3 * 4 * 5 * 8
        np.testing.assert_array_equal(file.read("k"), truth["k"][()])
        np.testing.assert_array_equal(file.read("k", (1,)), truth["k"][1])
        np.testing.assert_array_equal(file.read("k", (slice(0, 3, 2), -1)), truth["k"][::2, -1])
        np.testing.assert_array_equal(file.read("group/matlab"), np.array([1 + 2j, 3 - 4j]))
        np.testing.assert_array_equal(file.read("alias"), file.read("group/matlab"))
        assert file.read("group/raw").tolist() == [1 + 2j]
        assert file.read("group/raw").dtype == np.complex64
        assert file.read("big").dtype == np.dtype("=f4")
        assert file.read("big").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.read("flag").tolist() == [True, False]
        assert float(file.read("scalar")) == 2.5
        assert file.read("scalar").shape == ()
        assert file.read("k", (slice(2, 2),)).shape == (0, 4, 5)
        np.testing.assert_array_equal(file.read("chunked", (slice(3, 7),)), truth["chunked"][3:7])
        assert file.read("table")["b"].shape == (2, 3)
        assert file.read_text("text") == "grüße"
        assert file.read_text("fixed") == "abc"
        assert dict(file.attributes[""]) == {"name": "x", "values": [0, 1, 2]}
        assert file.attributes["group"]["fixed"] == "q"
        assert file.read("k").flags.writeable


@pytest.mark.parametrize(
    ("selection", "message"),
    [((3,), "index 3"), ((0, 0, 0, 0), "4 indices"), ((slice(None, None, -1),), "positive step")],
)
def test_a_selection_outside_is_an_index_error(plain, selection, message):
    with Hdf5File(plain) as file, pytest.raises(IndexError, match=message):
        file.read("k", selection)


def test_names_that_are_not_there_and_texts_are_refused(plain):
    with Hdf5File(plain) as file:
        with pytest.raises(InputError, match=r"'nope' is not in the file; datasets found: .*group/matlab"):
            file.read("nope")
        with pytest.raises(InputError, match="is a text, expected numbers"):
            file.read("text")
        with pytest.raises(InputError, match="not a single string"):
            file.read_text("k")
        with pytest.raises(InputError, match="not a table of ISMRMRD"):
            file.read_ismrmrd("other")
        assert file.read("flag").tolist() == [True, False]  # refusals leave the child in good order


def test_budget_is_checked_before_reading(tmp_path):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file["k"] = np.ones(1000)
        file.create_dataset("chunk", data=np.ones((40, 100)), chunks=(40, 100))
    with Hdf5File(path, max_bytes=4000) as file:
        with pytest.raises(InputError, match=r"declares 7\.8 KiB, more than the 3\.9 KiB .* --max-bytes"):
            file.read("k")
        assert file.read("k", (slice(0, 500),)).shape == (500,)
        with pytest.raises(InputError, match=r"needs 31\.2 KiB, more than the 3\.9 KiB"):  # a chunk is expanded whole
            file.read("chunk", (0,))


def test_undeclared_storage_and_bombs_are_refused(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("never", (1 << 20, 1 << 14), "f8")
        file.create_dataset("bomb", data=np.zeros(4 << 20), chunks=(1 << 20,), compression="gzip")
        file.create_dataset("mask", data=np.zeros((640, 368), bool), chunks=(640, 368), compression="gzip")
    with Hdf5File(path, max_bytes=1 << 50) as file:
        with pytest.raises(InputError, match="none were ever written"):
            file.read("never", (0, 0))
        with pytest.raises(InputError, match="decompression bomb"):
            file.read("bomb")
        assert file.read("mask").shape == (640, 368)  # masks compress well and do no harm


def test_data_in_other_files_are_refused(tmp_path, plain):
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"s" * 64)
    path = tmp_path / "links.h5"
    layout = h5py.VirtualLayout((3, 4, 5), np.complex64)
    layout[...] = h5py.VirtualSource(str(plain), "k", (3, 4, 5))
    with h5py.File(path, "w") as file:
        file.create_dataset("stored_outside", (64,), "u1", external=[(str(secret), 0, 64)])
        file.create_virtual_dataset("virtual", layout)
        file["outer"] = h5py.ExternalLink(str(plain), "/k")
        file["chain"] = h5py.SoftLink("/outer")
        file["inside/chain"] = h5py.SoftLink("/outer/anything")
        file["nowhere"] = h5py.SoftLink("/absent")
        file["ok"] = np.ones(2)
        file["loop/up"] = file["/"]
    with Hdf5File(path) as file:
        with pytest.raises(InputError, match="external file"):
            file.read("stored_outside")
        with pytest.raises(InputError, match="virtual dataset"):
            file.read("virtual")
        with pytest.raises(InputError, match="link into another file"):
            file.read("outer")
        for name in ("chain", "inside/chain", "nowhere"):
            with pytest.raises(InputError, match="leaves this file or leads nowhere"):
                file.read(name)
        assert sorted(file.datasets) == ["ok", "stored_outside", "virtual"]
        assert file.read("ok").tolist() == [1, 1]


def test_unknown_filters_are_refused(tmp_path):
    path = tmp_path / "filter.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("lzf", data=np.arange(100), compression="lzf")
        file.create_dataset("scaled", data=np.arange(100), scaleoffset=0)
    with Hdf5File(path) as file:
        assert file.read("lzf").sum() == 4950
        with pytest.raises(InputError, match="HDF5 filter 6; supported are gzip"):
            file.read("scaled")


def test_objects_depth_and_text_are_capped(tmp_path):
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        for number in range(30):
            file[f"d{number}"] = number
        file["a/b/c/d/e"] = 1
        file["text"] = "x" * 3000
        file["fixed"] = np.bytes_(b"x" * 3000)
    with Hdf5File(path, limits=Limits(objects=20)) as file, pytest.raises(InputError, match="more than 20 objects"):
        len(file.datasets)
    with Hdf5File(path, limits=Limits(depth=3, text_bytes=2000)) as file:
        assert "d0" in file.datasets
        assert file.refused["a/b/c/d"] == "nests groups deeper than 3"
        for name in ("text", "fixed"):
            with pytest.raises(InputError, match="text of 3000 bytes"):
                file.read_text(name)


def test_the_global_heap_hang_ends_within_the_limit(hang):
    start = time.monotonic()
    with Hdf5File(hang, limits=QUICK) as file:
        assert file.datasets["ismrmrd_header"].is_text
        with pytest.raises(InputError, match=r"no answer within 3 s .* probably corrupt"):
            file.read_text("ismrmrd_header")
    assert time.monotonic() - start < 25


def test_after_a_crash_the_next_request_starts_anew(plain):
    with Hdf5File(plain) as file:
        first = file.read("k")
        os.kill(file._process._child.pid, signal.SIGSEGV)
        file._process._child.wait()
        np.testing.assert_array_equal(file.read("k"), first)


def test_a_child_that_dies_over_a_request_is_an_input_error(plain, monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        'import os\nos.write(1, b\'{"ok": true, "result": null, "arrays": []}\\n\')\nos.read(0, 9)\nos.abort()\n'
    )
    monkeypatch.setattr(_hdf5_process, "_WORKER", worker)
    with Hdf5File(plain) as file, pytest.raises(InputError, match="the HDF5 library crashed on it"):
        len(file.datasets)


def test_a_child_that_lies_is_an_input_error(plain, monkeypatch, tmp_path):
    greeting = b'{"ok": true, "result": null, "arrays": []}\n'
    worker = tmp_path / "worker.py"
    for answer in (
        b"not json\n",
        b"[]\n",
        b'{"ok": true}\n',
        b'{"ok": true, "result": null, "arrays": [{"dtype": "|O", "shape": [1]}]}\n',
    ):
        worker.write_text(
            f"import os\nos.write(1, {greeting!r})\nos.read(0, 9)\nos.write(1, {answer!r})\nos.read(0, 9)\n"
        )
        monkeypatch.setattr(_hdf5_process, "_WORKER", worker)
        with Hdf5File(plain) as file, pytest.raises(InputError, match="could not be read"):
            len(file.datasets)


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4000), b"nothing of the kind"])
def test_what_is_no_hdf5_file_is_an_input_error(tmp_path, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with Hdf5File(path) as file, pytest.raises(InputError, match="truncated or corrupt"):
        len(file.datasets)


def test_a_truncated_file_is_an_input_error_without_library_garbage(plain):
    data = plain.read_bytes()
    plain.write_bytes(data[: len(data) // 2])
    with Hdf5File(plain) as file, pytest.raises(InputError, match=r"gave up with OSError\); copy it again") as caught:
        len(file.datasets)
    assert "eof" not in str(caught.value)


def test_no_process_is_left_behind(plain, process_count):
    gc.collect()  # what other tests left to the collector
    before = process_count()
    file = Hdf5File(plain)
    assert process_count() == before  # lazily started
    file.read("flag")
    assert process_count() == before + 1
    file.close()
    assert process_count() == before
    file.read("flag")
    del file
    gc.collect()
    assert process_count() == before


def test_a_forked_process_starts_its_own_child(plain):
    code = f"""
import os, sys
from pathlib import Path
from medrecon.io.hdf5 import Hdf5File
file = Hdf5File(Path({str(plain)!r}))
file.read("k")
pid = os.fork()
if pid == 0:
    total = abs(file.read("k")).sum()
    del file
    os._exit(0 if total > 0 else 1)
status = os.waitpid(pid, 0)[1]
sys.exit(status or not abs(file.read("k")).sum() > 0)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "ResourceWarning" not in result.stderr


def test_ismrmrd_acquisitions(tmp_path):
    path = tmp_path / "raw.h5"
    counts = [(name, "<u2") for name in ("number_of_samples", "active_channels", "trajectory_dimensions")]
    head = np.dtype([*counts, ("idx", [("slice", "<u2"), ("user", "<u2", (8,))])])
    ragged = h5py.vlen_dtype(np.float32)
    rows = np.zeros(70, dtype=[("head", head), ("traj", ragged), ("data", ragged)])
    for number in range(70):
        rows[number]["head"] = (5, 2, 1, (number, (0,) * 8))
        rows[number]["traj"] = np.full(5, number, np.float32)
        rows[number]["data"] = np.arange(20, dtype=np.float32) + number
    with h5py.File(path, "w") as file:
        file["dataset/data"] = rows
    with Hdf5File(path) as file:
        assert file.datasets["dataset/data"].fields == ("head", "traj", "data")
        found = file.read_ismrmrd("dataset")
    assert found.heads["idx"]["slice"].tolist() == list(range(70))
    assert found.samples.shape == (700,)
    lo, hi = found.offsets[3:5]
    np.testing.assert_array_equal(found.samples[lo:hi].reshape(2, 5)[0, :2], np.array([3 + 4j, 5 + 6j]))
    assert found.trajectory[found.trajectory_offsets[9] : found.trajectory_offsets[10]].tolist() == [9] * 5
    with Hdf5File(path, max_bytes=2000) as file, pytest.raises(InputError, match="--max-bytes"):
        file.read_ismrmrd("dataset")
    rows[1]["head"]["number_of_samples"] = 6
    with h5py.File(path, "w") as file:
        file["dataset/data"] = rows
    with Hdf5File(path) as file, pytest.raises(InputError, match="acquisition 1, whose header says"):
        file.read_ismrmrd("dataset")


def test_names_in_messages_are_printable_and_short():
    assert shown("a\x1b[31m\n") == "a?[31m?"
    assert len(shown("x" * 500)) == 80
