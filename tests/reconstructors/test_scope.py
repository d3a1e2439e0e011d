"""What a model was trained for: read, written, and held against measurements."""

import json
import re

import pytest
import torch

from medrecon.errors import InputError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, FanBeam2D, Inpainting, ParallelBeam2D
from medrecon.operators.recipes import load_recipe
from medrecon.reconstructors.noise import kspace_noise, sinogram_noise
from medrecon.reconstructors.scope import Scope, modality_of, read_scope, shipped_scopes
from medrecon.simulation import brain_phantom, simulate

MRI = {"modality": "mri", "acceleration": [1.5, 10], "matrix": [96, 640], "coils": [1, 32], "noise": 0.05}
CT = {
    "modality": "ct", "views": [30, 90], "degrees": [179, 181], "matrix": 512, "noise": 0.02,
    "attenuation": [0.01, 0.03], "geometry": ["ct-parallel"],
}  # fmt: skip
BY_PATTERN = {**MRI, "pattern": {"points": {}, "lines": {"acceleration": [2, 3], "noise": [0, 0.1]}}}
CS = {"modality": "cs", "ratio": [0.1, 0.5], "block_size": [32, 32], "channels": 1}


def scope(content, **changes):
    return Scope.from_dict({**content, **changes}, "scope.json")


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def brain():
    generator = torch.Generator().manual_seed(0)
    recipe = load_recipe("mri-cartesian-4x")
    return simulate(brain_phantom(1, (128, 96), generator), recipe, noise=0.005, generator=generator)


@pytest.mark.parametrize("content", [MRI, CT, CS, BY_PATTERN, {**MRI, "pattern": ["lines"]}])
def test_round_trip(content, tmp_path):
    found = scope(content)
    assert scope(found.to_dict()) == found
    assert read_scope(tmp_path) is None
    (tmp_path / "scope.json").write_text(json.dumps(found.to_dict()))
    assert read_scope(tmp_path) == found
    assert found.to_dict().get("pattern") == content.get("pattern")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected 'modality', one of mri, ct, cs"),
        ({"modality": "pet"}, "expected 'modality'"),
        ({**MRI, "views": 3}, "unknown key 'views' for mri; known: acceleration, coils, matrix, noise, pattern"),
        ({**MRI, "coils": [32, 1]}, r"coils: expected \[smallest, largest\], or the largest, got \[32, 1\]"),
        ({**MRI, "noise": "low"}, "noise: expected"),
        ({**MRI, "noise": float("nan")}, "noise: expected"),
        ({**MRI, "matrix": [1, 2, 3]}, "matrix: expected"),
        ({**CT, "geometry": "ct-parallel"}, "geometry: expected a list of names, or limits by name, got 'ct-par"),
        ({**CT, "geometry": [3]}, "geometry: expected a list"),
        ({**CT, "geometry": {"ct-fan": 3}}, "geometry: expected a list"),
        ({**MRI, "pattern": {"lines": {"noise": "low"}}}, "pattern: lines: noise: expected"),
        (
            {**MRI, "pattern": {"lines": {"pattern": []}}},
            "pattern: lines: unknown key 'pattern' for mri; known: acceleration, coils, matrix, noise$",
        ),
    ],
)
def test_mistakes_in_a_scope(content, message):
    with pytest.raises(InputError, match=rf"^scope.json: {message}"):
        Scope.from_dict(content, "scope.json")


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "scope.json").write_text("{")
    with pytest.raises(InputError, match=r"scope.json: cannot be read"):
        read_scope(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"acceleration": [4, 10]}, None),
        ({"acceleration": [5, 10]}, r"R = 4(\.\d+)? is beyond the 5 to 10 that it was trained for"),
        ({"acceleration": [1.5, 3]}, r"R = 4(\.\d+)? is beyond the 1.5 to 3 that it was trained for"),
        ({"coils": [1, 4]}, "8 coils are beyond the 1 to 4 that it was trained for"),
        ({"coils": [16, 16]}, "8 coils are beyond the 16 that it was trained for"),
        ({"matrix": [96, 120]}, "a matrix side of 128 is beyond the 96 to 120 that it was trained for"),
        ({"matrix": [100, 640]}, "a matrix side of 96 is beyond the 100 to 640 that it was trained for"),
        ({"noise": 0.001}, r"noise of 0\.\d+ % of the peak is beyond the 0 to 0.1 % that it was trained for"),
        ({"pattern": ["lines", "points"]}, None),
        ({"pattern": {"lines": {}, "points": {"acceleration": [5, 6]}}}, None),
        ({"pattern": {"lines": {"acceleration": [5, 6]}}}, r"R = 4(\.\d+)? is beyond the 5 to 6 that .*"),
        ({"acceleration": [5, 6], "pattern": {"lines": {"acceleration": [4, 5]}}}, None),
        ({"pattern": ["points"]}, "k-space is sampled in lines, not the points that it was trained for"),
        ({"modality": "cs"}, "it is for cs, not for CartesianMRI"),
    ],
)
def test_mri(brain, changes, message):
    content = {"modality": "cs"} if changes == {"modality": "cs"} else {**MRI, **changes}
    found = Scope.from_dict(content, "scope.json").refusal(brain.operator, brain.measurements)
    assert (found is None) == (message is None)
    if message is not None:
        assert re.fullmatch(message, found), found


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_units_do_not_matter(brain, factor):
    assert scope(MRI).refusal(brain.operator, brain.measurements * factor) is None


@pytest.mark.parametrize(("coils", "rate"), [(1, 1.5), (8, 4), (32, 1.5), (32, 10)])
def test_noise_alone_lies_outside(coils, rate):
    mask = torch.rand(256, generator=torch.Generator().manual_seed(0)) < 1 / rate
    operator = CartesianMRI(mask, image_shape=(192, 256))
    data = operator.mask * normal(coils, 192, 256, dtype=torch.complex64)
    free = scope(MRI, acceleration=[1, 20])
    assert free.refusal(operator, data[:, None]).startswith("noise of ")
    assert kspace_noise(data, operator.mask[0]) > 0.1


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
def test_estimate_of_noise(noise):
    generator = torch.Generator().manual_seed(1)
    image, recipe = brain_phantom(1, (192, 192), generator), load_recipe("mri-cartesian-4x")
    scan = simulate(image, recipe, noise=noise, generator=generator)
    found = kspace_noise(scan.measurements[0], scan.operator.mask[0])
    assert found == pytest.approx(noise, rel=0.25)


def test_noise_of_nothing():
    assert kspace_noise(torch.zeros(2, 8, 8, dtype=torch.complex64), torch.ones(8, 8)) == 0
    assert sinogram_noise(torch.zeros(1, 4, 8)) == sinogram_noise(torch.ones(1, 4, 2)) == 0


def test_images_of_other_dimensions():
    operator = CartesianMRI(torch.ones(4, 8, 8), spatial_dims=3)
    assert "not two-dimensional" in scope(MRI).refusal(operator, torch.ones(1, 1, 4, 8, 8, dtype=torch.complex64))


def sinogram(views=60, degrees=180.0, noise=0.0):
    angles = torch.arange(views) * torch.deg2rad(torch.tensor(degrees)) / views
    operator = ParallelBeam2D((64, 64), angles, detector_count=95, pixel_size=1.0, detector_pitch=1.0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    data = operator(0.02 * (1 - (x**2 + y**2)).clamp_min(0)[None, None])
    return operator, data + noise * data.max() * normal(*data.shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, None),
        ({"views": 20}, "20 views are beyond the 30 to 90"),
        ({"degrees": 120.0}, "an arc of 120 degrees is beyond the 179 to 181"),
        ({"noise": 0.05}, "noise of "),
    ],
)
def test_ct(options, message):
    found = scope(CT).refusal(*sinogram(**options))
    assert found is None if message is None else found.startswith(message)


@pytest.mark.parametrize(("factor", "message"), [(10.0, "0.1"), (0.1, "0.001")])
def test_ct_in_other_units(factor, message):
    """Attenuation per cm, or per pixel of some other object: not the tissue that a model has seen."""
    operator, data = sinogram()
    reason = scope(CT).refusal(operator, factor * data)
    assert reason.startswith(f"an attenuation of {message}")
    assert reason.endswith("per mm is beyond the 0.01 to 0.03 that it was trained for")


def test_an_empty_list_is_no_limit():
    assert scope(CT, geometry=[]).refusal(*sinogram()) is None


def test_geometry():
    operator = FanBeam2D(
        (64, 64), torch.arange(60) / 10, detector_count=95, pixel_size=1.0, detector_pitch=2.0,
        source_origin=200.0, source_detector=400.0,
    )  # fmt: skip
    reason = scope(CT).refusal(operator, torch.ones(1, *operator.data_shape))
    assert reason == "the geometry is ct-fan, not the ct-parallel that it was trained for"


@pytest.mark.parametrize(
    ("shape", "ratio", "block", "message"),
    [
        ((1, 64, 64), 0.1, 32, None),
        ((1, 64, 64), 0.05, 32, "a ratio of 0.05 is beyond the 0.1 to 0.5"),
        ((1, 64, 64), 0.25, 16, "a block size of 16 is beyond the 32"),
        ((3, 64, 64), 0.25, 32, "3 channels are beyond the 0 to 1"),
    ],
)
def test_compressed_sensing(shape, ratio, block, message):
    operator = BlockCompressedSensing(shape, ratio, block_size=block)
    found = scope(CS).refusal(operator, torch.ones(1, *operator.data_shape))
    assert found is None if message is None else found.startswith(message)


def test_modalities(monkeypatch, tmp_path):
    assert modality_of(BlockCompressedSensing((8, 8), 0.5, block_size=4)) == "cs"
    assert modality_of(Inpainting(torch.ones(1, 4, 4))) is None
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", tmp_path)
    for name, content in (("a", MRI), ("b", CT), ("c", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if content:
            (tmp_path / name / "scope.json").write_text(json.dumps(content))
    assert list(shipped_scopes("mri")) == ["a"]
    assert list(shipped_scopes("ct")) == ["b"]
    assert shipped_scopes(None) == {}
