"""Images become what a CT scanner would have counted."""

import numpy as np
import pytest
import torch

from medrecon.errors import UsageError
from medrecon.io import Geometry, Image
from medrecon.operators.recipes import Recipe
from medrecon.simulation.tomography import simulate_sinogram

RECIPE = Recipe("test", "test", "ct-parallel", {"views": 20})


def image(values, modality="CT", spacing=(0.8, 0.8, 2.0)):
    array = np.asarray(values, np.float32)
    return Image(array, Geometry.from_spacing(spacing, array.shape), modality)


def simulate(picture, recipe=RECIPE, **options):
    return simulate_sinogram(picture, recipe, generator=torch.Generator().manual_seed(0), **options)


@pytest.fixture
def water():
    hu = np.full((2, 32, 32), -1000.0)
    hu[:, 8:24, 8:24] = 0
    hu[0, 0, 0] = -3024
    return hu


def test_hounsfield_units_become_attenuation(water):
    result = simulate(image(water))
    assert result.quantity == "line_integral"
    assert result.mu_water == 0.02
    assert result.operator.pixel_size == pytest.approx(0.8)
    assert float(result.data[0, 0, 0].max()) == pytest.approx(16 * 0.8 * 0.02, rel=1e-4)
    assert float(result.reference.min()) == -1000


def test_counts(water):
    result = simulate(image(water), counts=1e6)
    clean = simulate(image(water))
    assert result.quantity == "counts"
    gap = -torch.log(result.data / 1e6) - clean.data
    assert float(gap.std()) == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize(("modality", "unit", "hu"), [("OT", "auto", True), ("OT", "hu", True), ("CT", "auto", True)])
def test_unit(water, modality, unit, hu):
    assert (simulate(image(water, modality), unit=unit).mu_water is not None) == hu


def test_attenuation_as_it_is():
    result = simulate(image(np.full((1, 8, 8), 0.03), "OT"))
    assert result.mu_water is None
    assert torch.equal(result.reference, torch.full((1, 8, 8), 0.03))


def test_errors(water):
    with pytest.raises(UsageError, match="--unit hu"):
        simulate(image(water), unit="mu")
    with pytest.raises(UsageError, match="square pixels"):
        simulate(image(water, spacing=(0.8, 0.9, 1)))
    with pytest.raises(UsageError, match="no CT acquisition"):
        simulate(image(water), Recipe("cs", "cs", "block-compressed-sensing", {"ratio": 0.5, "block_size": 8}))
