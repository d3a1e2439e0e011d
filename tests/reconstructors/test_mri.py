import logging

import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.io.scan import CartesianAcquisition, SliceStack
from medrecon.operators.fourier import centred_fft
from medrecon.operators.recipes import load_recipe
from medrecon.operators.samplers.registry import make_sampler
from medrecon.reconstructors.mri import (
    acceleration,
    is_fully_sampled,
    root_sum_of_squares,
    sampling_mask,
    sampling_pattern,
    slice_operator,
)
from medrecon.simulation import brain_phantom

SHAPE = (96, 80)


@pytest.fixture(scope="module")
def coils():
    """Fully sampled k-space of eight coils."""
    maps = load_recipe("mri-cartesian-4x").draw(SHAPE, torch.Generator().manual_seed(0)).maps[0, 0]
    return centred_fft(maps * brain_phantom(1, SHAPE, torch.Generator().manual_seed(1)))


def lines(every=2, centre=16):
    columns = torch.arange(SHAPE[1])
    return (columns % every == 0) | ((columns - SHAPE[1] // 2).abs() < centre // 2)


def test_mask_is_read_off_the_zeros(coils):
    mask = sampling_mask(coils * lines(), CartesianAcquisition(), 0)
    assert torch.equal(mask, lines().expand(SHAPE))
    assert acceleration(mask) == pytest.approx(80 / int(lines().sum()))


@pytest.mark.parametrize("shape", [(80,), (1, 80), (1, 1, 80), (1, 96, 80), (3, 96, 80)])
def test_stated_mask_wins(coils, shape):
    stated = lines().expand(shape).clone()
    assert torch.equal(sampling_mask(coils, CartesianAcquisition(mask=stated), 0), lines().expand(SHAPE))


def test_mask_of_each_slice(coils):
    masks = torch.stack([lines(2), lines(4)])[:, None]
    assert torch.equal(sampling_mask(coils, CartesianAcquisition(mask=masks), 1), lines(4).expand(SHAPE))


def test_fully_sampled():
    full = torch.ones(SHAPE, dtype=torch.bool)
    assert is_fully_sampled(full)
    border = full.clone()
    border[:, :20] = False
    assert is_fully_sampled(border)
    speck = full.clone()
    speck[3, 4] = False
    assert is_fully_sampled(speck)
    assert not is_fully_sampled(lines().expand(SHAPE))
    assert not is_fully_sampled(torch.zeros(SHAPE, dtype=torch.bool))


def test_lines_and_points():
    drawn = lines().expand(SHAPE).clone()
    assert sampling_pattern(drawn) == sampling_pattern(drawn.T) == "lines"
    drawn[:20] = False  # a partial echo
    assert sampling_pattern(drawn) == "lines"
    drawn[:, ::2] &= torch.rand(SHAPE[0], 1, generator=torch.Generator().manual_seed(0)) < 0.5
    assert sampling_pattern(drawn) == "points"
    assert sampling_pattern(torch.zeros(SHAPE)) == "lines"
    radial = make_sampler("radial", {"acceleration": 4}).draw(SHAPE, torch.Generator().manual_seed(0))
    assert sampling_pattern(radial.expand(SHAPE)) == "points"


@pytest.mark.parametrize("method", ["espirit", "walsh", "low-resolution"])
def test_operator_explains_the_data(coils, method):
    built = slice_operator(coils * lines(), CartesianAcquisition(), 0, method=method)
    assert method in built.maps
    x = built.operator.pinv(built.measurements)
    residual = (built.operator(x) - built.measurements).norm() / built.measurements.norm()
    assert residual < 0.05


def test_retrospective_mask_drops_the_rest(coils):
    built = slice_operator(coils, CartesianAcquisition(mask=lines()[None]), 0)
    assert not built.measurements[..., ~lines()].any()


def test_one_coil_needs_no_maps(coils):
    built = slice_operator(coils[:1] * lines(), CartesianAcquisition(), 0)
    assert built.operator.pinv_kind == "exact"


def test_given_maps_are_taken(coils):
    maps = torch.ones(1, 1, 8, *SHAPE, dtype=torch.complex64)
    built = slice_operator(coils, CartesianAcquisition(maps=maps), 0)
    torch.testing.assert_close(built.operator.maps, maps)
    assert "given" in built.maps


def test_separate_calibration(coils):
    undersampled = coils * (torch.arange(80) % 2 == 0)
    stack = SliceStack.from_tensor(coils[None, :, 36:60, 28:52])
    with pytest.raises(InputError, match="calibration"):
        slice_operator(undersampled, CartesianAcquisition(), 0)
    assert "24x24" in slice_operator(undersampled, CartesianAcquisition(calibration=stack), 0).maps
    with pytest.raises(InputError, match="4 coils, the measurements 8"):
        slice_operator(undersampled, CartesianAcquisition(calibration=SliceStack.from_tensor(coils[None, :4])), 0)


def test_few_calibration_lines_are_told(coils, caplog):
    logging.getLogger("medrecon").propagate = True
    with caplog.at_level(logging.WARNING):
        slice_operator(coils * lines(centre=10), CartesianAcquisition(), 0)
    assert "calibration lines" in caplog.text


def test_unknown_map_method(coils):
    with pytest.raises(UsageError, match="espirit"):
        slice_operator(coils, CartesianAcquisition(), 0, method="magic")


def test_root_sum_of_squares():
    torch.testing.assert_close(root_sum_of_squares(torch.tensor([[3j], [4.0]])), torch.tensor([5.0]))
