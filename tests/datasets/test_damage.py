"""Samples that cannot be read: the end, a replacement, or a gap."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from medrecon.datasets.damage import Damage
from medrecon.errors import InputError, UsageError


def reader(*damaged):
    def read(index):
        if index in damaged:
            raise InputError(f"sample {index} is gone")
        return index

    return read


class Numbers(Dataset):
    """Indices, where the damage policy lets them through."""

    def __init__(self, damage, *damaged):
        self.damage = damage
        self.damaged = damaged

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.damage.read(reader(*self.damaged), index, len(self))


def test_stop_raises_what_the_reader_raised():
    damage = Damage("stop", replace=True)
    assert damage.read(reader(1), 0, 3) == 0
    with pytest.raises(InputError, match="sample 1 is gone"):
        damage.read(reader(1), 1, 3)
    assert damage.count == 0


def test_skip_takes_the_next_and_counts(caplog):
    damage = Damage("skip", replace=True)
    assert [damage.read(reader(1, 3), index, 4) for index in range(4)] == [0, 2, 2, 0]
    assert damage.count == 2
    assert caplog.messages == ["left out: sample 1 is gone", "left out: sample 3 is gone"]


def test_without_replacement_there_is_a_gap(caplog):
    damage = Damage("skip", replace=False)
    assert [damage.read(reader(1), index, 3) for index in range(3)] == [0, None, 2]
    assert damage.count == 1
    assert caplog.messages == ["left out: sample 1 is gone"]


def test_a_drive_that_is_gone_ends_training():
    damage = Damage("skip", replace=True)
    with pytest.raises(InputError, match="64 samples in a row cannot be read; is the drive still there"):
        damage.read(reader(*range(100)), 5, 100)
    assert damage.count == 64


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_mistakes_of_the_caller_are_no_damage(policy):
    def read(index):
        raise UsageError(f"no sample {index}")

    damage = Damage(policy, replace=True)
    with pytest.raises(UsageError, match="no sample 2"):
        damage.read(read, 2, 3)
    assert damage.count == 0


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_count_together():
    data = Numbers(Damage("skip", replace=True), 0, 5)
    read = torch.cat(list(DataLoader(data, batch_size=2, num_workers=2))).tolist()
    assert read == [1, 1, 2, 3, 4, 6, 6, 7]
    assert data.damage.count == 2
