import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medrecon.errors import EmptyDataError, NumericalError, UsageError
from medrecon.io import Geometry, Scan, SliceStack
from medrecon.io.checks import with_checks
from medrecon.io.scan import CartesianAcquisition
from medrecon.operators import Inpainting
from medrecon.operators.fourier import centred_fft
from medrecon.reconstructors.choice import choose_method
from medrecon.reconstructors.plan import ReconstructionPlan
from medrecon.reconstructors.volume import reconstruct_scan, slices_geometry
from medrecon.simulation import brain_phantom


def scan_of(measurements, acquisition, shape=(24, 20)):
    geometry = Geometry.from_spacing((1.0, 2.0, 3.0), (len(measurements), *shape))
    return Scan(Path("scan.h5"), "test", SliceStack.from_tensor(measurements), acquisition, geometry)


@pytest.fixture
def image():
    return brain_phantom(3, (24, 20), torch.Generator().manual_seed(0))


@pytest.fixture
def scan(image):
    return scan_of(centred_fft(image.to(torch.complex64))[:, None], CartesianAcquisition())


def test_fully_sampled_volume(scan, image):
    result = reconstruct_scan(scan, ReconstructionPlan())
    np.testing.assert_allclose(result.array, image, atol=1e-5)
    assert result.provenance["method"] == "rss"
    assert result.provenance["residual"] is None


def test_crop_to_the_matrix(scan, image):
    scan = scan_of(scan.measurements.read(slice(None)), CartesianAcquisition(matrix=(12, 20)))
    assert reconstruct_scan(scan, ReconstructionPlan()).array.shape == (3, 12, 20)


def test_residual_and_progress_are_reported(scan):
    shares = []
    result = reconstruct_scan(scan, ReconstructionPlan("tv", {"max_iter": 5}), progress=shares.append)
    assert [record["slice"] for record in result.provenance["slices"]] == [0, 1, 2]
    assert 0 < result.provenance["residual"]["max"] < 0.2
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_any_operator():
    truth = brain_phantom(2, (24, 20), torch.Generator().manual_seed(0))[:, None]
    operator = Inpainting(torch.rand(1, 24, 20, generator=torch.Generator().manual_seed(1)) < 0.7)
    scan = scan_of(operator(truth), operator)
    assert choose_method(scan)[0] == "tv"
    result = reconstruct_scan(scan, ReconstructionPlan())
    assert np.abs(result.array - truth[:, 0].numpy()).mean() < 0.05


def test_some_slices(scan, image):
    result = reconstruct_scan(scan, ReconstructionPlan(slices=range(0, 3, 2)))
    np.testing.assert_allclose(result.array, image[::2], atol=1e-5)
    assert result.geometry.spacing == (1.0, 2.0, 6.0)


def test_geometry_of_slices():
    geometry = Geometry(np.diag([-1.0, -2.0, 3.0, 1.0]))
    chosen = slices_geometry(geometry, range(4, 10, 2))
    np.testing.assert_allclose(chosen.affine @ [5, 6, 2, 1], geometry.affine @ [5, 6, 8, 1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ReconstructionPlan(slices=range(2, 5)), "scan of 3"),
        (ReconstructionPlan("rss", {"regularization": 1.0}), "no parameters"),
        (ReconstructionPlan("nonsense"), "no method"),
    ],
)
def test_wrong_plans(scan, plan, message):
    with pytest.raises(UsageError, match=message):
        reconstruct_scan(scan, plan)


def test_rss_needs_coils():
    operator = Inpainting(torch.ones(1, 24, 20))
    with pytest.raises(UsageError, match="coil images"):
        reconstruct_scan(scan_of(torch.ones(1, 1, 24, 20), operator), ReconstructionPlan("rss"))


def test_nan_is_an_error(scan):
    broken = scan_of(torch.full((1, 1, 24, 20), torch.nan, dtype=torch.complex64), CartesianAcquisition())
    with pytest.raises(NumericalError):
        reconstruct_scan(broken, ReconstructionPlan("rss"))


def test_the_reason_tells_an_empty_border_from_full_sampling():
    kspace = torch.ones(1, 2, 24, 20, dtype=torch.complex64)
    geometry = Geometry.from_spacing((1, 1, 1), (1, 24, 20))
    for border, words in ((0, "fully sampled"), (5, "without gaps, R = 1.33")):
        kspace[..., :border] = 0
        scan = Scan(Path("x"), "test", SliceStack.from_tensor(kspace), CartesianAcquisition(), geometry)
        name, reason = choose_method(scan)[:2]
        assert name == "rss"
        assert words in reason


def test_empty_slices_stay_black(scan, image, caplog):
    kspace = torch.stack([scan.measurements[index] for index in range(3)])
    kspace[0] = 0
    checked = replace(scan, measurements=SliceStack.from_tensor(kspace))
    checked = with_checks(checked, "error")
    result = reconstruct_scan(checked, ReconstructionPlan())
    assert not result.array[0].any()
    np.testing.assert_allclose(result.array[1:], image[1:], atol=1e-5)
    assert result.provenance["slices"][0]["empty"]
    with pytest.raises(EmptyDataError):
        reconstruct_scan(checked, ReconstructionPlan(slices=range(1)))


def test_image_that_explains_nothing_is_told(scan, caplog):
    logging.getLogger("medrecon").propagate = True
    noise = torch.randn(1, 4, 24, 20, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    maps = torch.full((1, 1, 4, 24, 20), 0.5, dtype=torch.complex64)
    reconstruct_scan(scan_of(noise, CartesianAcquisition(maps=maps)), ReconstructionPlan("cg-sense"))
    assert "explain little" in caplog.text
