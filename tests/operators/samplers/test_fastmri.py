"""fastMRI's line masks: golden values made with the fastMRI package itself."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medrecon.errors import UsageError
from medrecon.operators.samplers import RandomLines, effective_acceleration, make_sampler

NAMES = ("random", "equispaced", "equispaced-fraction", "magic", "magic-fraction")
KNEE = (368, 4, 0.08, "file1000000.h5")
BRAIN = (320, 8, 0.04, "file_brain_AXT2_200_2000010.h5")
GOLDEN = [
    ("random", KNEE, 88, (4, 9, 10, 14), "c814b1134c27f1ff"),
    ("equispaced", KNEE, 114, (1, 5, 9, 13), "621c60306e8d2777"),
    ("equispaced-fraction", KNEE, 93, (1, 6, 12, 17), "2dbf84cf0f4a2f9f"),
    ("magic", KNEE, 114, (3, 7, 11, 15), "9522ccd1e87672ef"),
    ("magic-fraction", KNEE, 86, (3, 9, 15, 21), "be97d9add942a7f5"),
    ("random", BRAIN, 42, (11, 19, 26, 47), "81c4da7a613de7b5"),
    ("equispaced", BRAIN, 51, (2, 10, 18, 26), "d002325bcac403b6"),
    ("equispaced-fraction", BRAIN, 40, (2, 13, 25, 36), "76b0638820448f03"),
    ("magic", BRAIN, 51, (3, 11, 19, 27), "2f9fcc26eed80890"),
    ("magic-fraction", BRAIN, 38, (11, 23, 35, 47), "e114367383044a59"),
]


@pytest.mark.parametrize(("name", "file", "lines", "first", "digest"), GOLDEN)
def test_equals_fastmri_bit_for_bit(name, file, lines, first, digest):
    width, acceleration, fraction, filename = file
    sampler = make_sampler(name, {"acceleration": acceleration, "center_fraction": fraction})
    mask = sampler.draw_for_file((640, width), f"/some/folder/{filename}")
    assert mask.shape == (1, width)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == lines
    assert tuple(mask[0].nonzero()[:4, 0].tolist()) == first
    assert hashlib.sha256(mask.numpy().astype(np.uint8).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize(("any_combination", "lines"), [(False, 45), (True, 85)])
def test_lists_choose_as_fastmri_does(any_combination, lines):
    sampler = RandomLines((4, 8), (0.08, 0.04), allow_any_combination=any_combination)
    drawn = sampler.draw_details((640, 368), tuple(map(ord, KNEE[3])))
    assert drawn.low_frequencies == 15
    assert drawn.center_fraction == 0.04
    assert int(drawn.mask.sum()) == lines


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(width=st.integers(40, 700), seed=st.integers(0, 2**40))
def test_any_width_same_seed_same_mask_and_centre_sampled(name, width, seed):
    sampler = make_sampler(name, {"acceleration": 4, "center_fraction": 0.08})
    mask = sampler.draw((8, width), torch.Generator().manual_seed(seed))
    assert torch.equal(mask, sampler.draw((9, width), torch.Generator().manual_seed(seed)))
    assert mask[0, width // 2]
    low = round(0.08 * width) if name != "magic-fraction" else min(round(0.08 * width), round(width / 4))
    start = (width - low + 1) // 2
    assert mask[0, start : start + low].all()


@pytest.mark.parametrize(("name", "tolerance"), [("random", 0.03), ("equispaced-fraction", 0.03)])
@pytest.mark.parametrize("width", [368, 371, 200])
def test_mean_acceleration_is_the_nominal_one(name, tolerance, width):
    sampler = make_sampler(name, {"acceleration": 4, "center_fraction": 0.08})
    generator = torch.Generator().manual_seed(0)
    masks = torch.cat([sampler.draw((1, width), generator) for _ in range(200)])
    assert effective_acceleration(masks) == pytest.approx(4, rel=tolerance)


def test_successive_draws_differ():
    generator = torch.Generator().manual_seed(0)
    sampler = RandomLines(4, 0.08)
    assert not torch.equal(sampler.draw((1, 300), generator), sampler.draw((1, 300), generator))


def test_global_random_state_is_untouched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the very thing under test)
    RandomLines(4, 0.08).draw_for_file((1, 300), "a.h5")
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", ["equispaced", "equispaced-fraction", "magic", "magic-fraction"])
def test_given_offset_needs_no_randomness(name):
    sampler = make_sampler(name, {"acceleration": 4, "center_fraction": 0.04, "offset": 1})
    masks = [sampler.draw((1, 256), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert torch.equal(*masks)


def test_no_centre_on_request():
    mask = make_sampler("equispaced", {"acceleration": 4, "center_fraction": 0, "offset": 3}).draw(
        (1, 32), torch.Generator()
    )
    assert mask[0].nonzero()[:, 0].tolist() == list(range(3, 32, 4))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"acceleration": 4, "center_fraction": 0.25}, "lower center_fraction or acceleration"),
        ({"acceleration": 0.5, "center_fraction": 0.1}, "acceleration must be a number in"),
        ({"acceleration": "4", "center_fraction": 0.1}, "acceleration must be a number"),
        ({"acceleration": 4, "center_fraction": 1.5}, "center_fraction must be a number"),
        ({"acceleration": [4, 8], "center_fraction": 0.08}, "do not pair up"),
        ({"acceleration": [4, 8], "center_fraction": [0.08, 0.2], "allow_any_combination": True}, "takes 0.2"),
        ({"acceleration": [], "center_fraction": []}, "at least one"),
        ({"acceleration": 4, "center_fraction": 0.08, "offset": -1}, "offset counts"),
        ({"acceleration": 4, "center_fraction": 0.08, "offset": 1.5}, "offset must be"),
        ({"acceleration": 4, "center_fraction": 0.08, "allow_any_combination": "yes"}, "true or false"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(UsageError, match=message):
        make_sampler("random", parameters)


@pytest.mark.parametrize("name", ["equispaced", "magic"])
def test_regular_lines_need_a_whole_acceleration(name):
    with pytest.raises(UsageError, match=f"{name}-fraction"):
        make_sampler(name, {"acceleration": 4.5, "center_fraction": 0.08})


@pytest.mark.parametrize("name", NAMES)
def test_centre_that_rounds_up_to_everything(name):
    sampler = make_sampler(name, {"acceleration": 3.0, "center_fraction": 0.33})
    with pytest.raises(UsageError, match="center_fraction"):
        sampler.draw((1, 11), torch.Generator())


def test_centre_that_rounds_to_nothing():
    with pytest.raises(UsageError, match=r"rounds to none; use at least 0\.05"):
        RandomLines(4, 0.04).draw((1, 10), torch.Generator())


def test_empty_mask_is_refused():
    with pytest.raises(UsageError, match="no line of 4"):
        make_sampler("equispaced", {"acceleration": 8, "center_fraction": 0, "offset": 5}).draw(
            (1, 4), torch.Generator()
        )
