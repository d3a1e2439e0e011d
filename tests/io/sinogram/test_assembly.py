"""Raw sinograms become scans of line integrals, with every repair told."""

import math
from pathlib import Path

import pytest
import torch

from medrecon.errors import InputError, NumericalError
from medrecon.io import ReadOptions, SliceStack
from medrecon.io.sinogram.assembly import RawSinogram, sinogram_scan
from medrecon.io.sinogram.schema import SinogramSchema
from medrecon.operators import FanBeam2D, ParallelBeam2D

FILE = Path("scan.h5")


@pytest.fixture
def truth():
    """A disc off the axis, measured with the axis at column 24.3 + 2.5."""
    operator = ParallelBeam2D((32, 32), torch.arange(60) * math.pi / 60, detector_count=48, center_of_rotation=1.65)
    y, x = torch.meshgrid(15.5 - torch.arange(32), torch.arange(32) - 15.5, indexing="ij")
    image = (((x - 3) ** 2 + (y + 2) ** 2) < 64).float()[None, None] * 0.1
    return operator, operator(image)[0, 0]


def raw(values, operator, **options):
    return RawSinogram(SliceStack.from_tensor(values[None]), SinogramSchema(operator, **options))


def test_counts_with_fields(truth):
    operator, y = truth
    white, dark = torch.full((2, 48), 2000.0), torch.full((48,), 100.0)
    stack = SliceStack.from_tensor((100 + 1900 * torch.exp(-y))[None])
    schema = SinogramSchema(operator, quantity="counts")
    scan = sinogram_scan(FILE, "x", RawSinogram(stack, schema, lambda _: white, lambda _: dark), ReadOptions())
    assert scan.modality == "CT"
    assert torch.allclose(scan.measurements[0][0], y, atol=1e-4)
    assert scan.acquisition.config() == operator.config()
    assert scan.notes == ()


def test_transmission_and_scale(truth):
    operator, y = truth
    scan = sinogram_scan(FILE, "x", raw(torch.exp(-y), operator, quantity="transmission"), ReadOptions())
    assert torch.allclose(scan.measurements[0][0], y, atol=1e-4)
    scan = sinogram_scan(FILE, "x", raw(y / 7, operator, scale=7.0), ReadOptions())
    assert torch.allclose(scan.measurements[0][0], y, atol=1e-5)


def test_counts_without_any_reference(truth):
    operator, y = truth
    with pytest.raises(InputError, match="a white field, or data"):
        sinogram_scan(FILE, "x", raw(torch.exp(-y), operator, quantity="counts"), ReadOptions())


def test_center_is_estimated_where_it_is_not_known(truth):
    operator, y = truth
    unknown = ParallelBeam2D((32, 32), operator.angles, detector_count=48)
    given = RawSinogram(SliceStack.from_tensor(y[None]), SinogramSchema(unknown), center_known=False)
    scan = sinogram_scan(FILE, "x", given, ReadOptions())
    assert scan.acquisition.center_of_rotation == pytest.approx(1.65, abs=0.2)
    assert "found at detector column 25." in scan.notes[0]
    again = sinogram_scan(FILE, "x", raw(y, unknown), ReadOptions(center="auto"))
    assert again.acquisition.center_of_rotation == pytest.approx(scan.acquisition.center_of_rotation, abs=1e-6)


def test_center_from_the_user(truth):
    operator, y = truth
    scan = sinogram_scan(FILE, "x", raw(y, operator), ReadOptions(center=20.0))
    assert scan.acquisition.center_of_rotation == pytest.approx(20 - 23.5)
    with pytest.raises(InputError, match="--center 99"):
        sinogram_scan(FILE, "x", raw(y, operator), ReadOptions(center=99))


def test_center_of_a_fan():
    operator = FanBeam2D(
        (8, 8),
        torch.arange(9.0),
        source_origin=50,
        source_detector=100,
        detector_count=41,
        detector_pitch=1,
        detector_offset=0.5,
    )
    y = torch.zeros(9, 41)
    y[:, 20] = 1
    scan = sinogram_scan(FILE, "x", raw(y, operator), ReadOptions(center=24.0))
    assert scan.acquisition.center_of_rotation == pytest.approx((4 + 0.5) / 2)
    with pytest.raises(InputError, match="fan beam is not estimated"):
        sinogram_scan(FILE, "x", raw(y, operator), ReadOptions(center="auto"))


def test_image_size_keeps_the_extent(truth):
    operator, y = truth
    scan = sinogram_scan(FILE, "x", raw(y, operator), ReadOptions(image_size=16))
    assert scan.acquisition.image_shape == (1, 16, 16)
    assert scan.acquisition.pixel_size == 2.0
    assert scan.geometry.spacing[:2] == (2.0, 2.0)


def test_rings_and_hounsfield(truth):
    operator, y = truth
    striped = y.clone()
    striped[:, 42] += 0.4
    scan = sinogram_scan(FILE, "x", raw(striped, operator), ReadOptions(suppress_rings=True, mu_water=0.019))
    assert float((scan.measurements[0][0] - y)[:, 42].abs().max()) < 0.01
    assert scan.mu_water == 0.019
    assert any("--suppress-rings" in note for note in scan.notes)


def test_affine(truth):
    operator, y = truth
    affine = (0.0, 1.0, 0.0, 5.0, 1.0, 0.0, 0.0, 6.0, 0.0, 0.0, 2.0, 7.0, 0.0, 0.0, 0.0, 1.0)
    scan = sinogram_scan(FILE, "x", raw(y, operator, affine=affine), ReadOptions())
    assert scan.geometry.oriented
    assert scan.geometry.affine[0].tolist() == [0.0, 1.0, 0.0, 5.0]
    wrong = tuple(2 * value if index < 12 else value for index, value in enumerate(affine))
    with pytest.raises(InputError, match="pixels of 2 x 2 mm"):
        sinogram_scan(FILE, "x", raw(y, operator, affine=wrong), ReadOptions())


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda y: y.T, "transposed"), (lambda y: y[:-1], "60 angles"), (lambda y: y[:, 1:], "48 detector bins")],
)
def test_sizes(truth, change, message):
    operator, y = truth
    with pytest.raises(InputError, match=message):
        sinogram_scan(FILE, "x", raw(change(y), operator), ReadOptions())


def test_bad_samples(truth):
    operator, y = truth
    counts = 1000 * torch.exp(-y)
    counts[3, 5] = math.nan
    given = raw(counts, operator, quantity="counts", i0=1000.0)
    with pytest.raises(NumericalError, match="view 3, bin 5"):
        sinogram_scan(FILE, "x", given, ReadOptions())
    scan = sinogram_scan(FILE, "x", given, ReadOptions(nonfinite="zero"))
    assert bool(torch.isfinite(scan.measurements[0]).all())
    assert any("interpolated" in note for note in scan.notes)
