"""Metrics against a restatement of fastMRI's definitions with plain loops in double precision."""

import numpy as np
import pytest
import torch

from medrecon.datasets import Source
from medrecon.errors import InputError, NumericalError
from medrecon.metrics import centre_crop, evaluate_volume, psnr
from medrecon.pipelines.scores import VolumeScore, VolumeScores, groups, merged, summary


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


def restated_fastmri(target, image):
    """fastMRI's evaluate.py in double precision, with means of windows by cumulative sums instead of windows."""
    size = target.shape[-1]
    parts = []
    for volume in (target, image):
        top, left = max(volume.shape[-2] - size, 0) // 2, max(volume.shape[-1] - size, 0) // 2
        parts.append(volume.astype(np.float64)[:, top : top + size, left : left + size])
    t, x = parts
    peak = t.max()

    def mean(plane):
        total = np.pad(plane.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return (total[7:, 7:] - total[:-7, 7:] - total[7:, :-7] + total[:-7, :-7]) / 49

    ssim = []
    for a, b in zip(t / peak, x / peak, strict=True):
        ma, mb = mean(a), mean(b)
        va, vb, cov = (49 / 48 * (mean(p * q) - mean(p) * mean(q)) for p, q in ((a, a), (b, b), (a, b)))
        ssim.append(((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean())
    return {
        "nmse": ((t - x) ** 2).sum() / (t**2).sum(),
        "psnr": 10 * np.log10(peak**2 / ((t - x) ** 2).mean()),
        "ssim": np.mean(ssim),
    }


@pytest.mark.parametrize("shape", [(6, 21, 26), (6, 33, 20), (6, 23, 23)])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_slices_in_any_order_score_as_the_volume_does(shape, scale):
    """Targets wider than high and higher than wide, one slice of zeros, one much darker than the rest."""
    target = (scale * volume(*shape)).astype(np.float32)
    target[2] = 0
    target[4] *= 0.01
    image = (target + 0.1 * scale * volume(*shape, seed=1)).astype(np.float32)
    wanted = restated_fastmri(target, image)
    whole = evaluate_volume(target, image)
    found = {}
    for seed in range(3):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed)).tolist()
        scores = VolumeScores(["a.h5"] * 6 + ["b.h5"])
        for batch in (order[:1], order[1:4], order[4:]):
            assert scores.finished == {}
            assert scores.unfinished() == ["a.h5", "b.h5"]
            sources = [Source("a.h5", index, "AXT2", 4.0) for index in batch]
            scores.update(sources, torch.from_numpy(image[batch]), torch.from_numpy(target[batch]))
        assert scores.unfinished() == ["b.h5"]
        score = scores.finished["a.h5"]
        assert (score.volume, score.acquisition, score.acceleration, score.slices) == ("a.h5", "AXT2", 4.0, 6)
        assert score.error == ""
        found = dict(score.scores)
        assert found.pop("data_range") == target.max()
        for result in (whole, found):
            assert result.keys() == wanted.keys()
            for name, value in wanted.items():
                assert result[name] == pytest.approx(value, rel=1e-6, abs=1e-6)


def test_a_slice_that_comes_twice_counts_once():
    """Samplers of several processes repeat slices to even out."""
    target, image = volume(2, 9, 9), volume(2, 9, 9, seed=1)
    scores = VolumeScores(["a"] * 2)
    for index in (1, 1, 0):
        scores.update(
            [Source("a", index)],
            torch.from_numpy(image[index : index + 1]),
            torch.from_numpy(target[index : index + 1]),
        )
    assert scores.finished["a"].scores["nmse"] == evaluate_volume(target, image)["nmse"]


def test_volumes_without_a_score_say_why():
    scores = VolumeScores(["small", "dark", "broken", "good"])
    bad = torch.ones(1, 9, 9)
    bad[0, 3, 3] = torch.inf
    scores.update([Source("small", 0)], torch.ones(1, 5, 5), torch.ones(1, 5, 5))
    scores.update([Source("dark", 0)], torch.ones(1, 9, 9), torch.zeros(1, 9, 9))
    scores.update([Source("broken", 0)], bad, torch.ones(1, 9, 9))
    good = torch.from_numpy(volume(1, 9, 9))
    scores.update([Source("good", 0)], 0.9 * good, good)
    assert "7 x 7" in scores.finished["small"].error
    assert "the target is zero everywhere" in scores.finished["dark"].error
    assert "the image holds 1 NaN or Inf" in scores.finished["broken"].error
    assert all(scores.finished[name].scores == {} for name in ("small", "dark", "broken"))
    means = summary(scores.finished.values())
    assert means.keys() == {"nmse", "psnr", "ssim"}
    assert means["nmse"] == pytest.approx(0.01, rel=1e-5)


def test_means_groups_and_parts_of_processes():
    """Mean and twice the standard deviation over volumes, as fastMRI prints them."""
    scores = [
        VolumeScore(name, {"nmse": value, "psnr": 30 + value, "ssim": 0.5, "data_range": 1.0}, kind, rate, 2)
        for name, value, kind, rate in (("c", 1.0, "AXT2", 8), ("a", 2.0, "AXT1", 4), ("b", 6.0, "AXT2", 4))
    ]
    means = summary(scores)
    assert means["nmse"] == pytest.approx(3)
    assert means["nmse_2std"] == pytest.approx(2 * np.sqrt((4 + 1 + 9) / 3))
    assert means["psnr"] == pytest.approx(33)
    assert means["ssim_2std"] == 0
    assert summary(scores[:1]) == {"nmse": 1.0, "psnr": 31.0, "ssim": 0.5}
    assert summary([]) == {}
    by = groups(scores)
    assert list(by) == [("AXT1", 4), ("AXT2", 4), ("AXT2", 8)]
    assert [score.volume for score in by["AXT2", 8]] == ["c"]
    parts = [{score.volume: score} for score in (scores[0], scores[2])] + [{"a": scores[1], "c": scores[0]}, {}]
    assert [score.volume for score in merged(parts)] == ["a", "b", "c"]
