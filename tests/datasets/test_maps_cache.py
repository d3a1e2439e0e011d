"""Maps that are kept: estimated once, and again where the file is damaged."""

import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from medrecon.datasets import FastMRIDataset, index_folder, maps_cache
from medrecon.errors import UsageError
from medrecon.operators.samplers import make_sampler

LINES = make_sampler("random", {"acceleration": 4, "center_fraction": 0.16})


@pytest.fixture
def volumes(fastmri_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))
    return index_folder(fastmri_file("multi")).volumes


@pytest.fixture
def estimates(monkeypatch):
    """Methods of the estimates so far."""
    made = []
    estimate = maps_cache.estimate_maps

    def estimating(calibration, shape, method):
        made.append(method)
        return estimate(calibration, shape, method)

    monkeypatch.setattr(maps_cache, "estimate_maps", estimating)
    return made


def dataset(volumes, folder, **options):
    return FastMRIDataset(volumes, LINES, **{"training": False, "maps": "walsh", "maps_cache": folder, **options})


def test_what_is_kept_is_what_was_estimated(volumes, estimates, tmp_path):
    plain = dataset(volumes, None)[1]
    data = dataset(volumes, tmp_path / "maps")
    first, second = data[1], data[1]
    assert estimates == ["walsh", "walsh"]
    assert torch.equal(second.operator.maps, first.operator.maps)
    assert same_image(first, plain)
    assert same_image(second, plain)
    (file,) = (tmp_path / "maps").iterdir()
    assert np.load(file).nbytes == 8 * 4 * 32 * 48


def test_training_uses_them_in_every_epoch(volumes, estimates, tmp_path):
    data = dataset(volumes, tmp_path / "maps", training=True, augment=True)
    for epoch in range(4):
        data.set_epoch(epoch)
        data[0]
    assert len(estimates) == 1


@pytest.mark.parametrize(
    "change",
    [{"maps": "low-resolution"}, {"remove_oversampling": False}, {"index": 2}, {"low": 0.12}, {"modified": 1}],
)
def test_what_they_depend_on(volumes, estimates, tmp_path, change):
    change = dict(change)
    dataset(volumes, tmp_path / "maps")[1]
    index, low, modified = change.pop("index", 1), change.pop("low", None), change.pop("modified", None)
    data = dataset(volumes, tmp_path / "maps", **change)
    if low is not None:
        data.mask = make_sampler("random", {"acceleration": 4, "center_fraction": low})
    if modified is not None:
        os.utime(volumes[0].path, ns=(modified, modified))
        data = dataset([replace(volumes[0], modified=modified)], tmp_path / "maps")
    data[index]
    assert len(estimates) == 2
    assert len(list((tmp_path / "maps").iterdir())) == 2


def same_image(found, wanted):
    """Whether targets agree; outside the object maps follow the rounding of the FFT, which memory alignment changes."""
    return bool((found.target - wanted.target).abs().max() < 1e-4 * wanted.target.abs().max())


def zipped(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", b"")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_text("something else"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(1, 4, 32, 48)", b"(1, 4, 9**9**9)"[:14])),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(1, 4, 32, 48)", b"(1, 4, 16, 96)")),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(1, 4, 32, 48)", b"(9000000000, )")),
        lambda path: path.write_bytes(b"PK\x03\x04 cut"),
        lambda path: np.save(path, np.ones((1, 4, 32, 48), np.float32)),
        lambda path: np.save(path, np.array([{"a": 1}], dtype=object)),
        zipped,
    ],
)
def test_damaged_files_are_replaced(volumes, estimates, tmp_path, damage):
    data = dataset(volumes, tmp_path / "maps")
    wanted = data[1]
    (file,) = (tmp_path / "maps").iterdir()
    whole = file.read_bytes()
    damage(file)
    assert file.read_bytes() != whole
    again = data[1]
    assert same_image(again, wanted)
    assert len(estimates) == 2
    assert len(file.read_bytes()) == len(whole)
    assert torch.equal(data[1].operator.maps, again.operator.maps)
    assert len(estimates) == 2


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_folder_that_cannot_be_written_is_no_damage_of_the_data(volumes, tmp_path, policy):
    (tmp_path / "occupied").write_text("a file")
    data = dataset(volumes, tmp_path / "occupied" / "maps", on_damage=policy)
    with pytest.raises(UsageError, match="occupied"):
        data[1]
    assert data.damage.count == 0
