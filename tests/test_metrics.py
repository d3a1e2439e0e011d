"""Metrics against a restatement of fastMRI's definitions with plain loops in double precision."""

import numpy as np
import pytest

from medrecon.errors import InputError, NumericalError
from medrecon.metrics import centre_crop, evaluate_volume, psnr


def restated_ssim(target, image, data_range):
    """Uniform 7 x 7 window, sample covariance, interior only."""
    values = []
    c1, c2, n = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, 49
    for t, x in zip(target.astype(np.float64), image.astype(np.float64), strict=True):
        windows_t = np.lib.stride_tricks.sliding_window_view(t, (7, 7)).reshape(-1, n)
        windows_x = np.lib.stride_tricks.sliding_window_view(x, (7, 7)).reshape(-1, n)
        mt, mx = windows_t.mean(1), windows_x.mean(1)
        vt, vx = windows_t.var(1, ddof=1), windows_x.var(1, ddof=1)
        cov = ((windows_t - mt[:, None]) * (windows_x - mx[:, None])).sum(1) / (n - 1)
        s = (2 * mt * mx + c1) * (2 * cov + c2) / ((mt**2 + mx**2 + c1) * (vt + vx + c2))
        values.append(s.mean())
    return np.mean(values)


def volume(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 24, 20), (3, 20, 24), (4, 32, 32), (2, 9, 7)])
@pytest.mark.parametrize("empty_slice", [False, True])
def test_equals_the_definitions(shape, empty_slice):
    target = 1e-4 * volume(*shape)
    if empty_slice:
        target[0] = 0
        target[-1, -1, -1] = 1e-4
    image = target + 1e-5 * volume(*shape, seed=1)
    size = shape[-1]
    t, x = centre_crop(target, size, size).astype(np.float64), centre_crop(image, size, size).astype(np.float64)
    result = evaluate_volume(target, image)
    assert result["nmse"] == pytest.approx(((t - x) ** 2).sum() / (t**2).sum(), rel=1e-5)
    assert result["psnr"] == pytest.approx(10 * np.log10(t.max() ** 2 / ((t - x) ** 2).mean()), abs=1e-4)
    assert result["ssim"] == pytest.approx(restated_ssim(t, x, t.max()), abs=1e-6)


def test_larger_reconstruction_is_cropped():
    target = volume(2, 16, 16)
    assert evaluate_volume(target, np.pad(target, ((0, 0), (4, 4), (0, 0))))["nmse"] == 0


def test_equal_volumes():
    assert psnr(volume(1, 8, 8), volume(1, 8, 8)) == float("inf")


def test_mismatch_names_both():
    with pytest.raises(InputError, match=r"target \(2, 8, 8\), image \(3, 8, 8\).*--slices"):
        evaluate_volume(volume(2, 8, 8), volume(3, 8, 8))


@pytest.mark.parametrize("bad", [np.full((1, 8, 8), np.nan), np.zeros((1, 8, 8))])
def test_targets_without_meaning(bad):
    with pytest.raises(NumericalError):
        evaluate_volume(bad, volume(1, 8, 8))


def test_small_slices():
    with pytest.raises(InputError, match="7 x 7"):
        evaluate_volume(volume(1, 5, 5), volume(1, 5, 5))
