"""Where a sample is from, in words."""

from pathlib import Path

import pytest

from medrecon.datasets import Source
from medrecon.datasets.source import distinct_names


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Source("knee.h5", 7, "CORPD_FBK", 4.0), "knee.h5, slice 7"),
        (Source("knee.h5", 0), "knee.h5, slice 0"),
        (Source("head.png"), "head.png"),
    ],
)
def test_text(source, text):
    assert str(source) == text
    assert f"{source}" == text


def test_nothing_is_known_by_default():
    assert Source("a.h5") == ("a.h5", -1, "", None)


def test_names_that_repeat():
    files = [Path("/d/a/x.h5"), Path("/d/b/x.h5"), Path("/d/b/y.h5"), Path("/e/a/x.h5")]
    assert list(distinct_names(files).values()) == ["/d/a/x.h5", "b/x.h5", "y.h5", "/e/a/x.h5"]
    assert distinct_names([files[0], files[0]]) == {files[0]: "x.h5"}
