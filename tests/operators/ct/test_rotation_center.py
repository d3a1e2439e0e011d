"""The axis of phantoms, and of a real tooth."""

import math
from pathlib import Path

import pytest
import torch

from medrecon.errors import InputError
from medrecon.operators import ParallelBeam2D
from medrecon.operators.ct.prelog import line_integrals
from medrecon.operators.ct.rotation_center import find_rotation_center

TOOTH = Path(__file__).parents[3] / "../shared/data/ct_projections/tomopy_tooth/tooth.h5"


def sinogram(phantom, degrees, views, shift, *, bins=150, counts=None):
    image = phantom(40).image(96)[None, None] * 0.02
    angles = torch.arange(views) * math.radians(degrees) / views
    operator = ParallelBeam2D((96, 96), angles, detector_count=bins, center_of_rotation=shift)
    y = operator(image)[0, 0]
    if counts:
        generator = torch.Generator().manual_seed(0)
        y = -torch.log(torch.poisson(counts * torch.exp(-y), generator=generator).clamp_min(0.1) / counts)
    return y, operator.angles[0], (bins - 1) / 2 + shift


@pytest.mark.parametrize(("degrees", "views"), [(180, 120), (360, 200), (178.2, 91), (216, 150)])
@pytest.mark.parametrize("shift", [0.0, 3.3, -20.7, 29.0])
@pytest.mark.parametrize("counts", [None, 1e4])
def test_phantom(phantom, degrees, views, shift, counts):
    y, angles, column = sinogram(phantom, degrees, views, shift, counts=counts)
    assert find_rotation_center(y, angles) == pytest.approx(column, abs=0.25)


def test_truncated_object_is_found_roughly(phantom):
    y, angles, column = sinogram(phantom, 180, 180, 2.4, bins=70)
    assert find_rotation_center(y, angles) == pytest.approx(column, abs=2.5)


def test_views_in_any_order(phantom):
    y, angles, column = sinogram(phantom, 180, 120, 5.0)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    assert find_rotation_center(y[order], angles[order]) == pytest.approx(column, abs=0.25)


@pytest.mark.skipif(not TOOTH.exists(), reason="the shared sinogram of a tooth is not there")
@pytest.mark.parametrize("row", [0, 1])
def test_tooth(row):
    import h5py

    with h5py.File(TOOTH) as file:
        group = file["exchange"]
        data, white, dark = (torch.from_numpy(group[n][:, row]) for n in ("data", "data_white", "data_dark"))
        angles = torch.deg2rad(torch.from_numpy(group["theta"][:]))
    y, _ = line_integrals(data, white=white, dark=dark)
    assert find_rotation_center(y, angles) == pytest.approx(296, abs=1)


def test_too_few_views(phantom):
    y, angles, _ = sinogram(phantom, 120, 60, 0.0)
    with pytest.raises(InputError, match=r"120 degrees.*--center"):
        find_rotation_center(y, angles)


def test_nothing_to_see():
    with pytest.raises(InputError, match="empty sinogram"):
        find_rotation_center(torch.zeros(10, 8), torch.arange(10) * math.pi / 10)
