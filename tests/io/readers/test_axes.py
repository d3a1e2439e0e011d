"""Named axes: parsing, canonical order, repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medrecon.errors import InputError
from medrecon.io.readers.axes import NAMES, arrange, dropped_sets, join_repeats, parse_axes


def test_case_and_blanks_do_not_matter():
    assert parse_axes(" Coil, Y ,x") == ("coil", "y", "x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("coil,y,phase", "'phase' is not the name"),
        ("y,x,y", "'y' stands there twice"),
        ("coil,y", "x not named"),
        ("", "'' is not the name"),
        ("coil;y;x", "not the name"),
    ],
)
def test_wrong_axes_say_what_is_wrong(text, says):
    with pytest.raises(InputError, match=says):
        parse_axes(text)


@given(st.permutations(["coil", "slice", "z", "y", "x", "average", "repetition", "_"]))
def test_any_order_becomes_canonical(order):
    sizes = {"coil": 2, "slice": 3, "z": 4, "y": 5, "x": 6, "average": 2, "repetition": 2, "_": 1}
    array = np.arange(np.prod(list(sizes.values()))).reshape([sizes[name] for name in order])
    view = arrange(array, tuple(order))
    assert view.shape == (3, 4, 4, 2, 5, 6)
    index = {"coil": 1, "slice": 2, "z": 3, "y": 4, "x": 5, "average": 1, "repetition": 0, "_": 0}
    assert view[2, 1, 3, 1, 4, 5] == array[tuple(index[name] for name in order)]


def test_absent_axes_get_length_one():
    assert arrange(np.zeros((7, 9), np.complex64), ("y", "x")).shape == (1, 1, 1, 1, 7, 9)


def test_transposed_view_copies_nothing():
    array = np.zeros((8, 9, 4), np.complex64)
    assert np.shares_memory(arrange(array, ("y", "x", "coil")), array)


def test_only_the_first_set_is_kept():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert np.array_equal(arrange(array, ("set", "y", "x"))[0, 0, 0, 0], array[0])
    assert dropped_sets(array.shape, ("set", "y", "x")) == 1
    assert dropped_sets(array.shape, ("coil", "y", "x")) == 0


def test_wrong_count_names_shape_and_option():
    with pytest.raises(InputError, match=r"3 axes \(shape \(2, 3, 4\)\).*--axes coil,y,x"):
        arrange(np.zeros((2, 3, 4)), ("y", "x"))


def test_blank_axis_must_have_length_one():
    with pytest.raises(InputError, match="length 2 as '_'"):
        arrange(np.zeros((2, 3, 4)), ("_", "y", "x"))


def test_empty_array_is_refused():
    with pytest.raises(InputError, match="empty"):
        arrange(np.zeros((0, 3, 4)), ("coil", "y", "x"))


def test_average_counts_only_measured_samples():
    block = np.zeros((2, 1, 2, 3, 4), np.complex64)
    block[0, ..., 0] = 2 + 2j
    block[1, ..., 0] = 4
    block[1, ..., 1] = 6
    joined = join_repeats(block, "average")
    assert joined.dtype == np.complex64
    assert np.allclose(joined[..., 0], 3 + 1j)
    assert np.allclose(joined[..., 1], 6)
    assert not joined[..., 2:].any()
    assert np.array_equal(join_repeats(block, "first"), block[0])


def test_known_names_are_complete():
    assert set(NAMES) >= {"coil", "slice", "z", "y", "x", "set", "average", "repetition", "_"}
