import math

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.reconstructors.wavelet_transform import WAVELETS, WaveletTransform, daubechies_filter

GRIDS = [(64, 48), (33, 70), (16, 24, 32), (128,), (40, 1), (5, 4)]


def energy(bands):
    return sum(float(part.abs().square().sum()) for part in (bands.smooth, *bands.details))


@pytest.mark.parametrize("moments", range(1, 9))
def test_filters(moments):
    taps = torch.tensor(daubechies_filter(moments), dtype=torch.float64)
    assert len(taps) == 2 * moments
    for shift in range(moments):
        product = float((taps[2 * shift :] * taps[: len(taps) - 2 * shift]).sum())
        assert product == pytest.approx(1.0 if shift == 0 else 0.0, abs=1e-9)
    # vanishing moments of the high pass
    index = torch.arange(len(taps), dtype=torch.float64)
    high = taps.flip(0) * (-1) ** index
    for power in range(moments):
        assert float((high * (index / len(taps)) ** power).sum()) == pytest.approx(0, abs=1e-9)


def test_db2_in_closed_form():
    root = math.sqrt(3)
    expected = [value / (4 * math.sqrt(2)) for value in (1 + root, 3 + root, 3 - root, 1 - root)]
    assert daubechies_filter(2) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("spatial", GRIDS, ids=str)
def test_orthonormal(wavelet, spatial):
    transform = WaveletTransform(spatial, wavelet, 4)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *transform.grid, dtype=torch.float64, generator=generator)
    bands = transform.analyze(x)
    assert energy(bands) == pytest.approx(float(x.square().sum()), rel=1e-12)
    assert torch.allclose(transform.synthesize(bands), x, atol=1e-12)
    other = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    others = transform.analyze(other)
    pairs = zip((bands.smooth, *bands.details), (others.smooth, *others.details), strict=True)
    product = sum(float((a * b).sum()) for a, b in pairs)
    assert product == pytest.approx(float((x * other).sum()), abs=1e-9)


def test_complex_signals():
    transform = WaveletTransform((32, 32))
    x = torch.randn(1, 32, 32, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(transform.synthesize(transform.analyze(x)), x)


def test_levels_and_grid():
    assert WaveletTransform((230, 180)).levels == (4, 4)
    assert WaveletTransform((230, 180)).grid == (240, 192)
    assert WaveletTransform((256, 256)).grid == (256, 256)
    assert WaveletTransform((20, 256, 255)).levels == (1, 4, 4)
    assert WaveletTransform((20, 256, 255)).grid == (20, 256, 256)
    assert WaveletTransform((15, 7, 1)).levels == (1, 0, 0)
    assert WaveletTransform((256, 256), levels=1).levels == (1, 1)


def test_smooth_signals_have_no_details():
    bands = WaveletTransform((64,), "db3", 3).analyze(torch.ones(1, 64, dtype=torch.float64))
    assert max(float(part.abs().max()) for part in bands.details) < 1e-12


def test_shift_by_a_whole_cell():
    transform = WaveletTransform((64, 64), "db2", 3)
    x = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    moved = transform.analyze(x.roll((8, -16), (1, 2)))
    assert torch.allclose(moved.smooth, transform.analyze(x).smooth.roll((1, -2), (1, 2)), atol=1e-5)


def test_unknown_wavelet():
    with pytest.raises(UsageError, match="one of haar, db2, db3, db4, got 'sym4'"):
        WaveletTransform((8,), "sym4")
