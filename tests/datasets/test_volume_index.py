"""The index of fastMRI volumes: what it says, and which files it opens for that."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import medrecon.io.registry
from medrecon.datasets import Volume, index_folder
from medrecon.datasets.volume_index import cache_folder, describe_volumes
from medrecon.errors import InputError
from medrecon.io import write_fastmri, write_native
from medrecon.operators import CartesianMRI


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Folder of the cache: no test writes into a home."""
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that have been opened so far."""
    names = []
    read = medrecon.io.registry.read_scan

    def reading(path, *arguments):
        names.append(path.name)
        return read(path, *arguments)

    monkeypatch.setattr(medrecon.io.registry, "read_scan", reading)
    return names


def store(cache):
    (file,) = cache.glob("index-*.json")
    return file


@pytest.mark.parametrize(
    ("kind", "coils", "columns", "acquired", "acquisition", "undersampled"),
    [
        ("single", 1, 48, (0, 48), "CORPD_FBK", False),
        ("multi", 4, 48, (0, 48), "CORPD_FBK", False),
        ("brain", 4, 32, (2, 30), "AXT2", False),
        ("test", 4, 48, (0, 45), "CORPD_FBK", True),
    ],
)
def test_what_files_hold(fastmri_file, kind, coils, columns, acquired, acquisition, undersampled):
    path = fastmri_file(kind)
    (volume,) = index_folder(path).volumes
    status = path.stat()
    assert volume == Volume(
        path=path,
        slices=3,
        coils=coils,
        rows=64,
        columns=columns,
        matrix=(32, 32),
        acquired=acquired,
        acquisition=acquisition,
        undersampled=undersampled,
        size=status.st_size,
        modified=status.st_mtime_ns,
    )
    assert index_folder(path).volumes == (volume,)  # the same from the cache


def test_padding_that_is_not_symmetric(tmp_path):
    kspace = torch.ones(2, 3, 12, 17, dtype=torch.complex64)
    kspace[..., :1] = kspace[..., 14:] = 0
    write_fastmri(tmp_path / "a.h5", kspace, matrix=(5, 9), padding=(1, 3))
    (volume,) = index_folder(tmp_path).volumes
    assert volume.acquired == (1, 14)
    assert volume.matrix == (5, 9)
    assert volume.acquisition == ""
    assert not volume.undersampled


def test_undersampled_between_padded_borders(tmp_path):
    mask = torch.arange(17) % 2 == 1
    write_fastmri(tmp_path / "a.h5", mask * torch.ones(1, 2, 6, 17, dtype=torch.complex64), mask=mask)
    (volume,) = index_folder(tmp_path).volumes
    assert volume.acquired == (1, 16)
    assert volume.undersampled


def test_only_what_has_changed_is_opened_again(fastmri_folder, cache, opened):
    folder = fastmri_folder("multi", 3, 1)
    shares = []
    first = index_folder(folder, progress=shares.append)
    assert sorted(opened) == ["file000.h5", "file001.h5", "file002.h5"]
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    content = store(cache).read_text()
    assert json.loads(content)["files"].keys() == set(opened)

    del opened[:]
    assert index_folder(folder, progress=shares.append) == first
    assert opened == []
    assert len(shares) == 3
    assert store(cache).read_text() == content

    os.utime(folder / "file001.h5", ns=(1, 1))
    shutil.copy(folder / "file000.h5", folder / "file003.h5")
    (folder / "file002.h5").unlink()
    second = index_folder(folder)
    assert sorted(opened) == ["file001.h5", "file003.h5"]
    assert [volume.path.name for volume in second.volumes] == ["file000.h5", "file001.h5", "file003.h5"]
    assert second.volumes[1].modified == 1
    assert second.volumes[0] == first.volumes[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "{",
        lambda content: "[]",
        lambda content: json.dumps({**content, "format": content["format"] - 1}),
        lambda content: json.dumps({"files": content["files"]}),
        lambda content: json.dumps({**content, "files": [1, 2]}),
        lambda content: json.dumps({**content, "files": dict.fromkeys(content["files"], "unusable")}),
        lambda content: json.dumps({**content, "files": dict.fromkeys(content["files"], 7)}),
        lambda content: json.dumps(
            {
                **content,
                "files": {k: {"size": e["size"], "modified": e["modified"]} for k, e in content["files"].items()},
            }
        ),
        lambda content: json.dumps(
            {**content, "files": {name: {**entry, "colour": "red"} for name, entry in content["files"].items()}}
        ),
    ],
)
def test_a_damaged_or_foreign_cache_is_made_again(fastmri_folder, cache, opened, damage):
    folder = fastmri_folder("single", 1, 1)
    first = index_folder(folder)
    whole = store(cache).read_text()
    store(cache).write_text(damage(json.loads(whole)))
    assert index_folder(folder) == first
    assert len(opened) == 2
    assert json.loads(store(cache).read_text()) == json.loads(whole)


def test_a_cache_that_is_no_text(fastmri_folder, cache, opened):
    folder = fastmri_folder("single", 1, 1)
    first = index_folder(folder)
    store(cache).write_bytes(b"\xff\xfe\x00")
    assert index_folder(folder) == first
    assert len(opened) == 2


def test_a_cache_that_cannot_be_written_only_warns(fastmri_folder, tmp_path, opened, caplog):
    folder = fastmri_folder("single", 1, 1)
    (tmp_path / "occupied").write_text("a file")
    for _ in range(2):
        assert len(index_folder(folder, cache=tmp_path / "occupied" / "deeper").volumes) == 1
    assert len(opened) == 2
    assert len(caplog.messages) == 2
    assert "the index of volumes could not be kept" in caplog.messages[0]
    assert "it will be made again next time" in caplog.messages[0]
    assert (tmp_path / "occupied").read_text() == "a file"


def test_folders_do_not_share_their_cache(fastmri_folder, cache):
    one, other = fastmri_folder("single", 1, 1, "one"), fastmri_folder("multi", 1, 1, "other")
    assert [index_folder(folder).volumes[0].coils for folder in (one, other, one)] == [1, 4, 1]
    assert len(list(cache.iterdir())) == 2


def test_another_folder_for_the_cache(fastmri_folder, tmp_path, cache):
    index_folder(fastmri_folder("single", 1, 1), cache=tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1
    assert not cache.exists()


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MEDRECON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "medrecon"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "medrecon"


def test_unusable_files_and_why(fastmri_folder, opened):
    folder = fastmri_folder("multi", 2, 1)
    whole = (folder / "file000.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "text.h5").write_text("not HDF5 at all")
    write_native(folder / "ours.h5", torch.ones(1, 1, 6, 8, dtype=torch.complex64), CartesianMRI(image_shape=(6, 8)))
    (folder / ".hidden.h5").write_bytes(whole)
    (folder / "notes.txt").write_text("nothing")
    index = index_folder(folder)
    assert [volume.path.name for volume in index.volumes] == ["file000.h5", "file001.h5"]
    assert index.unusable.keys() == {"cut.h5", "text.h5", "ours.h5"}
    assert all(str(folder / name) in reason for name, reason in index.unusable.items())
    assert "is a file of format medrecon, not of fastMRI's" in index.unusable["ours.h5"]
    del opened[:]
    assert index_folder(folder) == index
    assert opened == []


def test_fingerprint(fastmri_folder):
    folder = fastmri_folder("multi", 2, 1)
    index = index_folder(folder)
    listed = "\n".join(f"{name}:{(folder / name).stat().st_size}" for name in ("file000.h5", "file001.h5"))
    assert index.fingerprint() == hashlib.sha256(listed.encode()).hexdigest()
    moved = folder.rename(folder.with_name("elsewhere"))
    os.utime(moved / "file000.h5", ns=(1, 1))
    assert index_folder(moved).fingerprint() == index.fingerprint()
    (moved / "file001.h5").rename(moved / "file009.h5")
    assert index_folder(moved).fingerprint() != index.fingerprint()


def test_nothing_to_index(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; expected a folder of fastMRI volumes"):
        index_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS.h5").write_text("")
    with pytest.raises(InputError, match=r"empty: no \*\.h5 files in this folder; expected a folder"):
        index_folder(tmp_path / "empty")


def test_a_line_for_people(fastmri_folder):
    volumes = [
        *index_folder(fastmri_folder("multi", 2, 2, "knee")).volumes,
        *index_folder(fastmri_folder("brain", 1, 3, "brain")).volumes,
    ]
    assert describe_volumes(volumes) == "3 volumes, 7 slices (AXT2, CORPD_FBK)"
    assert describe_volumes([]) == "0 volumes"
