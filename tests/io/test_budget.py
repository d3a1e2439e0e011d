from pathlib import Path

import pytest

from medrecon.errors import InputError
from medrecon.io import budget


def test_sizes_for_people():
    assert budget.human(12) == "12 B"
    assert budget.human(1536) == "1.5 KiB"
    assert budget.human(114 << 30) == "114.0 GiB"
    assert budget.human(5 << 40) == "5.0 TiB"


def test_the_default_is_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(budget, "free_memory", lambda: 1000)
    assert budget.resolve(None) == 500
    assert budget.resolve(7) == 7
    with pytest.raises(InputError, match="positive number of bytes"):
        budget.resolve(0)


def test_free_memory_is_positive_and_less_in_a_container(tmp_path, monkeypatch):
    assert budget.free_memory() > 0
    monkeypatch.setattr(budget, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert budget.free_memory() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert budget.free_memory() > 3000
    monkeypatch.setattr(budget, "_MEMINFO", tmp_path / "absent")
    assert budget.free_memory() > 3000


def test_require_names_file_sizes_and_option():
    budget.require(10, 10, path=Path("a.h5"), what="dataset 'k'")
    with pytest.raises(InputError, match=r"a\.h5: dataset 'k' declares 2\.0 KiB, more than the 1\.0 KiB .*--max-bytes"):
        budget.require(2048, 1024, path=Path("a.h5"), what="dataset 'k'")
