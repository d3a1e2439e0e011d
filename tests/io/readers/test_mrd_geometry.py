"""Slices in space: order, regularity, orientation, LPS to RAS."""

import numpy as np
import pytest

from medrecon.io.readers.mrd_geometry import place_slices

HEAD = np.dtype(
    [("idx", [("slice", "<u2")])] + [(name, "<f4", (3,)) for name in ("position", "read_dir", "phase_dir", "slice_dir")]
)


def heads(positions, read=(1, 0, 0), phase=(0, 1, 0), normal=(0, 0, 1)):
    rows = np.zeros(len(positions), HEAD)
    rows["idx"]["slice"] = np.arange(len(positions))
    rows["position"] = positions
    rows["read_dir"], rows["phase_dir"], rows["slice_dir"] = read, phase, normal
    return rows


def test_descending_slices_keep_their_order():
    placement = place_slices(heads([(0, 0, 8), (0, 0, 4), (0, 0, 0)]), 3.0)
    assert placement.oriented
    assert placement.numbers.tolist() == [0, 1, 2]
    assert np.allclose(placement.step, [0, 0, -4])


def test_interleaved_slices_are_sorted():
    placement = place_slices(heads([(0, 0, 0), (0, 0, 8), (0, 0, 4)]), 3.0)
    assert placement.numbers.tolist() == [0, 2, 1]
    assert np.allclose(placement.step, [0, 0, 4])
    assert placement.notes == ("slices were sorted by position",)


def test_one_slice_takes_the_thickness_and_a_missing_normal():
    placement = place_slices(heads([(1, 2, 3)], normal=(0, 0, 0)), 3.0)
    assert placement.oriented
    assert np.allclose(placement.step, [0, 0, 3])


def test_affine_is_ras():
    placement = place_slices(heads([(10, 20, 30)]), 5.0)
    geometry = placement.geometry((placement.phase, 2.0), (placement.read, 1.5), placement.step, (4, 6, 0), (1, 12, 8))
    assert np.allclose(geometry.affine @ [4, 6, 0, 1], [-10, -20, 30, 1])
    assert np.allclose(geometry.affine @ [5, 6, 0, 1], [-10, -22, 30, 1])
    assert np.allclose(geometry.affine @ [4, 7, 0, 1], [-11.5, -20, 30, 1])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (heads([(0, 0, 0), (0, 0, 5), (0, 0, 207)]), "gaps of 5.00 to 202.00 mm"),
        (heads([(0, 0, 0)] * 3), "not equally spaced"),
        (heads([(0, 0, 0)], read=(1, 0.2, 0)), "no orthogonal"),
        (heads([(0, 0, np.nan)]), "no orthogonal"),
        (heads([(0, 0, 0), (5, 0, 5)]), "along their normal"),
    ],
)
def test_no_stack(rows, says):
    placement = place_slices(rows, 3.0)
    assert not placement.oriented
    assert says in placement.notes[0]
    geometry = placement.geometry((placement.phase, 2.0), (placement.read, 1.5), placement.step, (0, 0, 0), (1, 4, 4))
    assert not geometry.oriented
    assert geometry.spacing == pytest.approx((2.0, 1.5, 3.0))
