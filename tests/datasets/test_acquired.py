"""MRI simulated as a scanner makes it, and what training on it needs: patches, shrinking, stacks."""

import numpy as np
import pytest
import torch

from medrecon.datasets import GroundTruth, SimulatedDataset, Source, collate, load_ground_truth
from medrecon.datasets.acquired import acquire
from medrecon.errors import UsageError
from medrecon.operators import CartesianMRI
from medrecon.operators.recipes import Recipe, load_recipe
from medrecon.operators.samplers.coil_maps import CoilArray
from medrecon.simulation import brain_phantom, smooth_phase

MRI = load_recipe("mri-singlecoil-4x")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def image():
    plane = brain_phantom(1, (64, 56), generator())[0].float()
    return torch.polar(plane, smooth_phase((64, 56), generator(1)))[None, None]


def transform(images):
    """The centred unitary Fourier transform of the last two axes, restated."""
    axes = (-2, -1)
    shifted = torch.fft.ifftshift(images, dim=axes)
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=axes)


def line_mask(width, step, centre):
    mask = torch.arange(width) % step == 0
    mask[width // 2 - centre // 2 : width // 2 + centre // 2] = True
    return mask


class TestAcquire:
    def test_truth_of_several_coils_is_the_root_sum_of_squares_with_noise(self, image):
        maps = CoilArray(count=5).draw((64, 56), generator(2))
        operator = CartesianMRI(line_mask(56, 3, 14), maps)
        y, given, truth = acquire(image, operator, noise=0.02, maps=None, generator=generator(3))
        assert given is operator
        full = CartesianMRI(None, maps)
        everything, _, same = acquire(image, full, noise=0.02, maps=None, generator=generator(3))
        assert torch.allclose(y, everything * operator.mask[:, None])  # the mask changes no noise
        coils = torch.fft.fftshift(
            torch.fft.ifft2(torch.fft.ifftshift(everything, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
        )
        assert torch.allclose(truth.abs()[0, 0], coils[0].abs().square().sum(0).sqrt(), atol=1e-5)
        assert torch.equal(truth, same)
        noise = everything - transform(maps[None] * image)
        assert float(noise.real.std()) == pytest.approx(0.02 * float(image.abs().max()), rel=0.03)
        combined = (maps.conj() * coils[0]).sum(0)
        assert torch.allclose(truth[0, 0] * combined.abs(), combined * truth[0, 0].abs(), atol=1e-4)

    def test_one_coil(self, image):
        operator = CartesianMRI(line_mask(56, 4, 8), image_shape=(64, 56))
        y, given, truth = acquire(image, operator, noise=0.03, maps="espirit", generator=generator(3))
        assert given is operator
        assert torch.allclose(operator(truth), y, atol=1e-5)  # the noise that was measured is that of the truth
        assert float((truth - image).real.std()) == pytest.approx(0.03 * float(image.abs().max()), rel=0.03)

    def test_estimated_maps_explain_the_data(self, image):
        maps = CoilArray(count=6).draw((64, 56), generator(2))
        operator = CartesianMRI(line_mask(56, 3, 20), maps)
        y, given, truth = acquire(image, operator, noise=0.0, maps="espirit", generator=generator(3))
        assert given is not operator
        assert torch.equal(given.mask, operator.mask)
        assert torch.allclose(truth.abs(), image.abs(), atol=1e-4)
        error = torch.linalg.vector_norm(given(truth) - y) / torch.linalg.vector_norm(y)
        assert float(error) < 0.02
        wrong = torch.linalg.vector_norm(given(image) - y) / torch.linalg.vector_norm(y)
        assert float(wrong) > 0.3  # estimated maps have a phase of their own, so the truth must take it over

    def test_without_calibration_lines_the_maps_are_known(self, image):
        operator = CartesianMRI(torch.arange(56) % 4 == 0, CoilArray(count=4).draw((64, 56), generator(2)))
        assert acquire(image, operator, noise=0.0, maps="espirit", generator=generator(3))[1] is operator


class TestSimulatedDataset:
    def test_acquired_truth(self, image):
        truths = [GroundTruth(image[0, 0].abs(), Source("phantom"))] * 2
        data = SimulatedDataset(
            truths, load_recipe("mri-random-4x"), noise=(0.02, 0.02), truth="acquired", maps="espirit"
        )
        batch = collate([data[0], data[1]])
        assert batch.operator.image_shape == (1, 64, 56)
        background = batch.target[0, 0, :4, :4].abs()
        assert float(background.min()) > 0
        clean = SimulatedDataset(truths, load_recipe("mri-random-4x"), noise=(0.02, 0.02))[0].target
        assert float(clean[0, 0, :4, :4].abs().max()) == 0
        with pytest.raises(UsageError, match="an acquired truth is for Cartesian MRI, recipe 'block-cs-10' is none"):
            _ = SimulatedDataset(truths, load_recipe("block-cs-10"), truth="acquired")[0]

    def test_patches_of_so_many_rows_and_columns(self):
        planes = [
            GroundTruth(torch.rand(40, 64) + 0.1, Source("wide")),
            GroundTruth(torch.rand(12, 30), Source("small")),
        ]
        data = SimulatedDataset(planes, MRI, patch=(16, 48), phase=False)
        assert tuple(data[0].target.shape[2:]) == (16, 48) == data.shape_of(0)
        assert tuple(data[1].target.shape[2:]) == (12, 30) == data.shape_of(1)
        windows = planes[0].image.unfold(0, 16, 1).unfold(1, 48, 1)
        assert float((windows - data[0].target.abs()[0, 0]).abs().amax((2, 3)).min()) < 1e-6
        with pytest.raises(UsageError, match=r"patch must lie between 1 and the size of the images, got \(0, 9\)"):
            SimulatedDataset(planes, MRI, patch=(0, 9))

    def test_patches_of_a_recipe(self):
        other = Recipe.from_dict(
            {
                "name": "rows",
                "description": "lines",
                "operator": "cartesian-mri",
                "mask": {"sampler": "random", "acceleration": 2, "center_fraction": 0.2},
            },
            "card",
        )
        planes = [GroundTruth(torch.rand(40, 40) + 0.1, Source(str(number))) for number in range(12)]
        data = SimulatedDataset(planes, [MRI, other], patch=24, patches={"rows": (8, 64)})
        shapes = {(data[index].source.acquisition, tuple(data[index].target.shape[2:])) for index in range(12)}
        assert shapes == {(MRI.name, (24, 24)), ("rows", (8, 40))}

    def test_shrinking_averages_squares_and_grows_pixels(self):
        plane = torch.rand(43, 32)
        data = SimulatedDataset([GroundTruth(plane, Source("body"), 0.7)], load_recipe("ct-parallel-30"), shrink=(4,))
        sample = data[0]
        wanted = plane[:40].reshape(10, 4, 8, 4).mean((1, 3))
        assert torch.allclose(sample.target[0, 0], wanted)
        assert sample.operator.pixel_size == pytest.approx(2.8)
        drawn = SimulatedDataset(
            [GroundTruth(plane, Source("body"))] * 12, load_recipe("ct-parallel-30"), shrink=(1, 2)
        )
        assert {tuple(drawn[index].target.shape[2:]) for index in range(12)} == {(43, 32), (21, 16)}
        with pytest.raises(UsageError, match=r"shrink holds factors from 1, got \(0,\)"):
            SimulatedDataset([GroundTruth(plane, Source("body"))], MRI, shrink=(0,))


def test_folder_of_several_dicom_stacks(tmp_path):
    """As of several patients: each stack is a volume, each patient a subject; names of patients are not kept."""
    from medrecon.io.geometry import Geometry
    from medrecon.io.image import Image
    from medrecon.io.writers import write_image

    for number in range(3):
        volume = np.full((1, 16, 12), 1.0 + number, np.float32)
        volume[0, 3:7, 2:9] += 5 * np.random.default_rng(number).random((4, 7))
        write_image(
            Image(volume, Geometry.from_spacing((1.0, 1.0, 3.0), volume.shape), "MR", {}), tmp_path / f"{number}.dcm"
        )
    found = load_ground_truth([tmp_path])
    assert len(found) == 3
    assert len({truth.source.volume for truth in found}) == 3
    assert {truth.source.volume for truth in found} == {f"{tmp_path.name}, stack {number}" for number in (1, 2, 3)}
