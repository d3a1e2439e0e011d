"""Blocks without gaps; the sorting itself is tested through files in test_ismrmrd.py."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medrecon.io.readers.mrd_lines import full_block


def test_block_of_one_row():
    row = np.zeros((1, 20), bool)
    row[0, 6:14] = True
    row[0, ::4] = True
    assert full_block(row) == (slice(0, 1), slice(6, 14))


def test_block_of_an_ellipse():
    y, x = np.mgrid[-8:8, -12:12]
    block = full_block((y / 7) ** 2 + (x / 10) ** 2 < 1)
    assert (block[0].stop - block[0].start) * (block[1].stop - block[1].start) > 100


def test_nothing_measured():
    assert full_block(np.zeros((4, 5), bool)) is None


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_a_block_never_has_gaps(rows):
    measured = np.array(rows)
    block = full_block(measured)
    assert (block is None) == (not measured.any())
    assert block is None or measured[block].all()
