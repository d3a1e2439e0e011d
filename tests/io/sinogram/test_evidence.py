"""What a sinogram tells of mistakes in its description."""

import math

import pytest
import torch

from medrecon.io.sinogram.evidence import angle_notes, data_notes
from medrecon.operators import ParallelBeam2D


@pytest.mark.parametrize(
    ("angles", "words"),
    [
        (torch.deg2rad(torch.arange(180) * math.pi / 180), "is angle_unit rad"),
        (torch.deg2rad(torch.arange(360) * 2 * math.pi / 360), "a full turn: is angle_unit rad"),
        (torch.arange(180.0), "half a turn: is angle_unit deg"),
        (torch.deg2rad(torch.arange(90.0)), "limited angle: the views cover 90 degrees"),
        (torch.zeros(1), "a single view"),
    ],
)
def test_angles(angles, words):
    notes = " ".join(angle_notes(ParallelBeam2D((4, 4), angles)))
    assert words in notes


def test_nothing_to_say():
    operator = ParallelBeam2D((64, 64), torch.arange(60) * math.pi / 60)
    assert angle_notes(operator) == []
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    disc = ((x**2 + y**2) < 25**2).float()[None, None] * 0.05
    assert data_notes(operator(disc)[0, 0]) == []


def test_counts_taken_for_line_integrals():
    assert "are these counts" in data_notes(torch.full((5, 30), 40000.0))[0]


def test_negative_line_integrals():
    y = torch.rand(5, 30)
    y[2, 3] = -4
    assert "white field" in " ".join(data_notes(y))


def test_object_beyond_the_detector():
    operator = ParallelBeam2D((64, 64), torch.arange(60) * math.pi / 60, detector_count=40)
    assert "truncated" in data_notes(operator(torch.full((1, 1, 64, 64), 0.05))[0, 0])[0]


def test_nothing_but_nan():
    assert data_notes(torch.full((3, 4), math.nan)) == []
