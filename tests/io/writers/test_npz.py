import json
from dataclasses import replace

import numpy as np
import pytest

from medrecon.io.geometry import Geometry
from medrecon.io.images import load_image
from medrecon.io.writers.npz import write_npz


def test_opens_without_pickle(mr, tmp_path):
    write_npz(mr, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["array"], mr.array)
        np.testing.assert_array_equal(file["affine"], mr.geometry.affine)
        assert json.loads(file["provenance"].item())["method"] == "l1-wavelet"


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_round_trip(mr, tmp_path, dtype):
    image = replace(mr, array=mr.array.astype(dtype), geometry=Geometry(mr.geometry.affine, oriented=False))
    write_npz(image, tmp_path / "a.npz")
    back = load_image(tmp_path / "a.npz")
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_array_equal(back.geometry.affine, image.geometry.affine)
    assert (back.geometry.oriented, back.modality) == (False, "MR")
    assert back.provenance == mr.provenance
    assert back.header == mr.header
