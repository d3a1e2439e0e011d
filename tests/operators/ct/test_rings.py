"""Stripes go, the rest stays."""

import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct.rings import suppress_rings


@pytest.fixture
def clean(phantom):
    angles = torch.arange(180) * math.pi / 180
    return ParallelBeam2D((128, 128), angles, detector_count=160)(phantom(64).image(128)[None, None])[0]


def test_stripes_of_any_kind_are_cut_to_an_eighth_of_their_energy(clean):
    generator = torch.Generator().manual_seed(0)
    bins = torch.randperm(150, generator=generator)[:12] + 5
    offset = torch.zeros(160)
    offset[bins] = torch.randn(12, generator=generator) * 0.05 * float(clean.max())
    gain = torch.ones(160)
    gain[bins.flip(0)[:6] + 1] = 1.04
    striped = clean * gain + offset
    left = suppress_rings(striped) - suppress_rings(clean)
    added = striped - clean
    assert float(left.square().sum()) < 0.125 * float(added.square().sum())


def test_without_stripes_little_changes(clean):
    change = suppress_rings(clean) - clean
    assert float(change.norm() / clean.norm()) < 0.003


def test_batches_and_small_sinograms(clean):
    batch = torch.stack([clean, 2 * clean])
    assert torch.equal(suppress_rings(batch)[1], suppress_rings(2 * clean))
    small = torch.rand(3, 5)
    assert torch.equal(suppress_rings(small), small)


@pytest.mark.parametrize("width", [1, 4])
def test_width(clean, width):
    with pytest.raises(UsageError, match="odd"):
        suppress_rings(clean, width=width)
