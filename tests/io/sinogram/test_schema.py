"""The schema of sinogram geometry: what it takes, what it refuses."""

import math

import pytest
import torch

from medrecon.errors import InputError
from medrecon.io.sinogram.schema import SinogramSchema, flattened
from medrecon.operators import FanBeam2D, ParallelBeam2D


def card(**changes):
    base = {
        "medrecon_ct": 1,
        "geometry": "parallel",
        "detector": {"count": 13, "pitch": 0.7},
        "angles": {"start": 10, "span": 180, "count": 6},
        "angle_unit": "deg",
        "image": {"shape": [8, 9], "pixel": 0.5},
        "data": {"quantity": "line_integral", "unit": "dimensionless"},
    }
    for key, value in changes.items():
        name, _, inner = key.partition("__")
        if value is None:
            base.pop(name) if not inner else base[name].pop(inner)
        elif inner:
            base[name] = {**base.get(name, {}), inner: value}
        else:
            base[name] = value
    return base


def read(**changes):
    return SinogramSchema.from_mapping(card(**changes), "scan.h5")


def test_parallel():
    schema = read()
    operator = schema.operator
    assert isinstance(operator, ParallelBeam2D)
    assert operator.image_shape == (1, 8, 9)
    assert operator.data_shape == (1, 6, 13)
    assert torch.allclose(operator.angles[0], torch.deg2rad(10 + 30 * torch.arange(6).double()))
    assert (schema.quantity, schema.mu_water, schema.i0, schema.scale) == ("line_integral", None, None, 1.0)


def test_fan():
    operator = read(geometry="fan", source_origin=50, source_detector=80, detector__shape="arc").operator
    assert isinstance(operator, FanBeam2D)
    assert (operator.source_origin, operator.source_detector, operator.detector_shape) == (50, 80, "arc")


@pytest.mark.parametrize(
    ("angles", "unit", "expected"),
    [
        ({"values": [0, 45, 100]}, "deg", [0, 45, 100]),
        ({"values": [0, math.pi / 2]}, "rad", [0, 90]),
        ({"start": 0, "span": 180, "count": 3, "endpoint": True}, "deg", [0, 90, 180]),
        ({"start": 0, "span": 180, "count": 3, "centred": True}, "deg", [30, 90, 150]),
    ],
)
def test_angles(angles, unit, expected):
    assert torch.allclose(read(angles=angles, angle_unit=unit).degrees, torch.tensor(expected).double())
    clockwise = read(angles=angles, angle_unit=unit, rotation="cw")
    assert torch.allclose(clockwise.degrees, -torch.tensor(expected).double())


def test_hounsfield_output():
    assert read(output={"unit": "hu", "mu_water": 0.019}).mu_water == 0.019
    assert read(output={"unit": "hu"}).mu_water == 0.02
    assert read(output={"unit": "mu"}).mu_water is None


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("fan", [True, False])
def test_there_and_back(nested, fan):
    changes = {"geometry": "fan", "source_origin": 50.0, "source_detector": 80.0} if fan else {}
    schema = read(**changes, detector__offset=0.3, center_of_rotation=-0.2, image__center=[0.5, 1.0])
    mapping = schema.to_mapping() if nested else flattened(schema.to_mapping())
    again = SinogramSchema.from_mapping(mapping, "x", angles=schema.degrees)
    assert again.operator.config() == schema.operator.config()
    assert torch.allclose(again.operator.angles, schema.operator.angles)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"medrecon_ct": 2}, "medrecon_ct is 2, expected 1"),
        ({"sources_origin": 3}, r"unknown key 'sources_origin'.*did you mean 'source_origin'"),
        ({"detector__pich": 3}, r"unknown key 'detector.pich'"),
        ({"angle_unit": None}, "angle_unit is missing, expected deg or rad"),
        ({"data__unit": None}, "data.unit is missing"),
        ({"data__unit": "1/m"}, "data.unit is '1/m'"),
        ({"geometry": "cone"}, "geometry is 'cone', expected parallel or fan"),
        ({"geometry": "fan"}, "'source_origin' is missing"),
        ({"source_origin": 3.0}, "source_origin is for geometry fan"),
        ({"detector__count": 3.5}, "detector.count is 3.5, expected a whole number"),
        ({"detector__count": True}, "detector.count is True"),
        ({"detector__pitch": math.inf}, "detector.pitch is inf"),
        ({"detector__pitch": -1.0}, "detector_pitch must be a positive length"),
        ({"angles": {"values": "all"}}, "angles.values is 'all'"),
        ({"angles": {"span": 180, "count": 0}}, "angles.count is 0"),
        ({"angles": {"span": 180, "count": 3, "endpoint": "yes"}}, "angles.endpoint is 'yes'"),
        ({"image__shape": [3]}, "expected a list of 2 numbers"),
        ({"image__affine": [1, 2]}, "expected a list of 16 numbers"),
        ({"data__axes": ["view", "bin"]}, "expected view and det"),
        ({"data__axes": 3}, "expected a list of words"),
        ({"rotation": "left"}, "rotation is 'left'"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(InputError, match=message):
        read(**changes)
