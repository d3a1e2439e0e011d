import os

import h5py
import numpy as np
import pytest

from medrecon.errors import InputError
from medrecon.io.source import Source


def test_content_decides_what_is_hdf5(tmp_path):
    text = tmp_path / "named.h5"
    text.write_text("no signature here")
    with Source(text) as source:
        assert source.hdf5 is None
        assert source.head == b"no signature here"
        assert source.size == 17
    for block in (512, 2048):
        path = tmp_path / f"block{block}.mat"
        with h5py.File(path, "w", userblock_size=block) as file:
            file["x"] = np.arange(3)
        with Source(path) as source:
            assert source.hdf5 is not None
            assert source.hdf5 is source.hdf5
            assert source.hdf5.read("x").tolist() == [0, 1, 2]
    assert len(source.head) <= 4096


def test_the_budget_reaches_the_hdf5_reader(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(1000)
    with Source(path, max_bytes=100) as source, pytest.raises(InputError, match="--max-bytes"):
        source.hdf5.read("x")


def test_what_cannot_be_opened_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Source(tmp_path / "absent")
    with pytest.raises(InputError, match="is a folder"):
        Source(tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        Source(empty)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a regular file"):
        Source(pipe)
    with pytest.raises(InputError, match="cannot be opened"):
        Source(empty / "below")
    with pytest.raises(InputError, match="cannot be opened"):
        Source(tmp_path / ("x" * 300))


def test_permission_denied_is_an_input_error(tmp_path, monkeypatch):
    path = tmp_path / "locked"
    path.write_bytes(b"x")

    def deny(*_):
        raise PermissionError

    monkeypatch.setattr(os, "open", deny)  # root may read everything, so the mode alone proves nothing
    with pytest.raises(InputError, match="permission denied"):
        Source(path)
