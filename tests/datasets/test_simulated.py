"""Simulated training data: right, repeatable, and independent of how they are loaded."""

import math

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch.utils.data import DataLoader

from medrecon.datasets import GroundTruth, SimulatedDataset, Source, TrainingBatch, collate, load_ground_truth
from medrecon.errors import InputError, OperatorError, UsageError
from medrecon.models import InvertibleDiffusionModel
from medrecon.operators import BlockCompressedSensing, CartesianMRI, ParallelBeam2D
from medrecon.operators.recipes import load_recipe
from medrecon.simulation import brain_phantom

MRI = load_recipe("mri-singlecoil-4x")


@pytest.fixture(scope="module")
def images():
    planes = brain_phantom(4, (64, 56), torch.Generator().manual_seed(0)).float()
    return [GroundTruth(plane, Source(f"phantom {index}")) for index, plane in enumerate(planes)]


def same(a, b):
    return torch.equal(a.measurements, b.measurements) and torch.equal(a.target, b.target)


class TestSimulatedDataset:
    def test_measurements_are_those_of_the_target(self, images):
        sample = SimulatedDataset(images, MRI)[1]
        assert isinstance(sample.operator, CartesianMRI)
        assert sample.source == Source("phantom 1")
        assert torch.allclose(sample.operator(sample.target), sample.measurements)
        assert torch.allclose(sample.target.abs()[0, 0], images[1].image, atol=1e-6)
        assert sample.target.imag.abs().max() > 0.01

    def test_without_phase(self, images):
        target = SimulatedDataset(images, MRI, phase=False)[1].target
        assert target.imag.abs().max() == 0

    def test_multi_coil_and_other_operators(self, images):
        coils = SimulatedDataset(images, load_recipe("mri-cartesian-4x"))[0]
        assert coils.measurements.shape[1] > 1
        sensing = SimulatedDataset(images, load_recipe("block-cs-25"))[0]
        assert isinstance(sensing.operator, BlockCompressedSensing)
        assert sensing.target.dtype == torch.float32
        tomography = SimulatedDataset(images, load_recipe("ct-parallel-30"))[0]
        assert isinstance(tomography.operator, ParallelBeam2D)
        assert torch.allclose(tomography.operator(tomography.target), tomography.measurements)

    def test_repeats_itself(self, images):
        options = {"patch": 32, "augment": True, "noise": (0.0, 0.1)}
        data, again = SimulatedDataset(images, MRI, **options), SimulatedDataset(images, MRI, **options)
        for index in (2, 0, 1):
            assert same(data[index], again[index])
        assert not same(data[0], SimulatedDataset(images, MRI, seed=1, **options)[0])
        before = data[0]
        data.set_epoch(1)
        assert not same(data[0], before)
        data.set_epoch(0)
        assert same(data[0], before)

    def test_patches_are_parts_of_the_image(self, images):
        data = SimulatedDataset(images, MRI, patch=24)
        for epoch in range(10):
            data.set_epoch(epoch)
            patch = data[0].target.abs()[0, 0]
            assert patch.shape == (24, 24)
            windows = images[0].image.unfold(0, 24, 1).unfold(1, 24, 1)
            assert float((windows - patch).abs().amax((2, 3)).min()) < 1e-6

    def test_patches_are_never_empty(self):
        image = torch.zeros(40, 30)
        image[3, 27] = 1.0
        data = SimulatedDataset([GroundTruth(image, Source("a dot"))], MRI, patch=8)
        assert float(data[0].target.abs().amax()) == pytest.approx(1.0)

    def test_augmentation_turns_and_mirrors(self):
        image = torch.arange(16.0).reshape(4, 4)
        data = SimulatedDataset([GroundTruth(image, Source("corner"))], load_recipe("inpainting-50"), augment=True)
        seen = set()
        for epoch in range(60):
            data.set_epoch(epoch)
            seen.add(tuple(data[0].target.flatten().tolist()))
        assert len(seen) == 8

    def test_several_recipes(self, images):
        """Each sample draws one; a validation set measures a whole volume alike."""
        recipes = [load_recipe(name) for name in ("mri-singlecoil-4x", "mri-radial-8x", "mri-cartesian-4x")]
        data, seen = SimulatedDataset(images, recipes), set()
        for epoch in range(12):
            data.set_epoch(epoch)
            sample = data[0]
            seen.add(sample.source.acquisition)
            assert sample.measurements.shape[1] == (1 if "singlecoil" in sample.source.acquisition else 8)
        assert seen == {recipe.name for recipe in recipes}
        volumes = [GroundTruth(images[index % 4].image, Source(f"volume {index // 4}", index)) for index in range(24)]
        names = [sample.source.acquisition for sample in SimulatedDataset(volumes, recipes, by_volume=True)]
        assert all(len(set(names[start : start + 4])) == 1 for start in range(0, 24, 4))
        assert len(set(names)) > 1

    def test_contrast(self, images):
        """m to the power of γ, log γ uniform between ± 0.5; the phase stays."""
        data = SimulatedDataset(images, MRI, contrast=0.5, phase=False)
        plain, exponents = images[0].image, []
        for epoch in range(40):
            data.set_epoch(epoch)
            target = data[0].target[0, 0].real
            inside = (plain > 0.1) & (plain < 0.9 * plain.max())
            ratio = torch.log(target[inside] / plain.max()) / torch.log(plain[inside] / plain.max())
            assert float(ratio.std()) < 1e-4
            exponents.append(math.log(float(ratio.mean())))
        assert max(map(abs, exponents)) <= 0.5
        assert min(exponents) < -0.25
        assert max(exponents) > 0.25
        signed = SimulatedDataset(
            [GroundTruth(torch.tensor([[-4.0, 0.0], [1.0, 2.0]]))], load_recipe("block-cs-50"), contrast=1.0
        )
        target = signed[0].target[0, 0]
        assert float(target[0, 0]) == pytest.approx(-4)
        assert float(target[0, 1]) == 0

    def test_inversion(self, images):
        """Every third image, say: what was brightest is darkest, air stays black, the phase stays."""
        plain = images[0].image
        data = SimulatedDataset(images, MRI, inversion=0.3, phase=False)
        turned = 0
        for epoch in range(60):
            data.set_epoch(epoch)
            target = data[0].target[0, 0].real
            if torch.allclose(target, plain):
                continue
            turned += 1
            m, found = plain / plain.max(), target / plain.max()
            inside = m > 0.15
            share = (found + m)[inside]
            assert float(share.std()) < 1e-4
            assert 1.1 <= float(share.mean()) <= 1.4
            assert float(found[m == 0].abs().max()) == 0
            edge = (m > 0) & ~inside
            assert torch.allclose(found[edge], m[edge] / 0.15 * (share.mean() - m[edge]), atol=1e-5)
        assert 8 <= turned <= 30
        signed = [GroundTruth(torch.tensor([[-4.0, 0.0], [1.0, 2.0]]))]
        target = SimulatedDataset(signed, load_recipe("block-cs-50"), inversion=1.0)[0].target[0, 0]
        assert float(target[0, 0]) < 0 < float(target[1, 0])

    def test_noise_level(self, images):
        recipe = load_recipe("block-cs-50")
        clean, noisy = (SimulatedDataset(images, recipe, noise=(level, level))[0] for level in (0.0, 0.05))
        spread = float((noisy.measurements - clean.measurements).std())
        assert spread == pytest.approx(0.05 * float(images[0].image.max()), rel=0.1)

    def test_photons(self, images):
        """The noise of line integrals is that of a Poisson law: variance e^y / I₀."""
        thin = [GroundTruth(0.01 * truth.image, truth.source, 1.0) for truth in images]
        recipe = load_recipe("ct-parallel-180")
        clean = SimulatedDataset(thin, recipe)[0]
        noisy = SimulatedDataset(thin, recipe, counts=(1e4, 1e4))[0]
        error = (noisy.measurements - clean.measurements) * (1e4 * torch.exp(-clean.measurements)).sqrt()
        assert float(error.std()) == pytest.approx(1, rel=0.05)
        assert torch.equal(noisy.target, clean.target)
        with pytest.raises(UsageError, match=r"counts are for X-rays, recipe 'mri-singlecoil-4x' is no CT"):
            SimulatedDataset(images, MRI, counts=(1e3, 1e5))[0]

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_workers_see_the_epoch(self, images):
        data = SimulatedDataset(images, MRI, patch=32)
        loader = DataLoader(data, batch_size=2, num_workers=1, collate_fn=collate, persistent_workers=True)
        for epoch in (0, 3):
            data.set_epoch(epoch)
            for number, batch in enumerate(loader):
                assert same(batch, collate([data[2 * number], data[2 * number + 1]]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patch": 60}, r"patch must lie between 1 and the size of the images, got 60; phantom 0 has \(64, 56\)"),
            ({"patch": 0}, r"got 0"),
            ({"noise": (0.2, 0.1)}, r"noise is a range \(low, high\)"),
            ({"noise": (0.0, math.inf)}, r"noise is a range"),
            ({"contrast": -1.0}, r"expected at least one recipe and contrast >= 0, got 1 recipes and contrast -1.0"),
            ({"inversion": 1.5}, r"inversion is a share of the images, 0 to 1, got 1.5"),
            ({"counts": (0.0, 5.0)}, r"counts is a range \(low, high\)"),
        ],
    )
    def test_mistakes(self, images, options, message):
        with pytest.raises(UsageError, match=message):
            SimulatedDataset(images, MRI, **options)


class TestCollate:
    def test_batch(self, images):
        data = SimulatedDataset(images, MRI)
        batch = collate([data[index] for index in range(3)])
        assert isinstance(batch, TrainingBatch)
        assert batch.operator.batch_size == 3
        assert [str(source) for source in batch.sources] == ["phantom 0", "phantom 1", "phantom 2"]
        assert torch.allclose(batch.operator(batch.target), batch.measurements)
        assert batch.to("cpu").target.device.type == "cpu"

    def test_mixed_sizes(self, images):
        mixed = [images[0], GroundTruth(torch.rand(32, 32), Source("small"))]
        data = SimulatedDataset(mixed, MRI)
        with pytest.raises(OperatorError, match=r"a batch needs one class and one shape \(sort samples by shape"):
            collate([data[0], data[1]])

    def test_a_model_trains_on_it(self, images):
        loader = DataLoader(SimulatedDataset(images, MRI, patch=32), batch_size=2, collate_fn=collate)
        model = InvertibleDiffusionModel.from_preset("tiny", image_channels=2, steps=1)
        for batch in loader:
            model.training_loss(batch).backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


class TestGroundTruth:
    def test_files_and_folders(self, tmp_path):
        volume = np.random.default_rng(0).random((12, 10, 3), dtype=np.float32)
        volume[..., 1] = 0  # a slice of air
        nib.save(nib.Nifti1Image(volume, np.diag([0.7, 0.7, 2.0, 1.0])), tmp_path / "b.nii.gz")
        np.save(tmp_path / "a.npy", np.ones((2, 8, 8), np.float32))
        (tmp_path / "deeper").mkdir()
        Picture.fromarray(np.full((6, 5), 9, np.uint8)).save(tmp_path / "deeper" / "c.png")
        (tmp_path / "LICENSE").write_text("CC0")
        (tmp_path / "SOURCE.txt").write_text("from somewhere")
        found = load_ground_truth([tmp_path])
        wanted = ["a.npy, slice 0", "a.npy, slice 1", "b.nii.gz, slice 0", "b.nii.gz, slice 2", "deeper/c.png, slice 0"]
        assert [str(truth.source) for truth in found] == wanted
        assert found[2].pixel_size == pytest.approx(0.7)
        assert found[2].image.dtype == torch.float32

    def test_assumptions_are_told_once(self, tmp_path, caplog):
        for name in "abc":
            np.save(tmp_path / f"{name}.npy", np.ones((1, 4, 4), np.float32))
        load_ground_truth([tmp_path])
        assert [record.getMessage() for record in caplog.records] == [
            "3 files: the file states no spacing or orientation: 1 mm and axial assumed"
        ]

    def test_modality_of_files_that_do_not_say(self, tmp_path):
        np.save(tmp_path / "hu.npy", np.full((1, 4, 4), 1000.0, np.float32))
        (truth,) = load_ground_truth([tmp_path / "hu.npy"], modality="CT", mu_water=0.02)
        assert torch.allclose(truth.image, torch.full((4, 4), 0.04))

    def test_subjects(self, tmp_path):
        """Two orientations of the same people: a volume each, and nobody on both sides of a split."""
        rng = np.random.default_rng(0)
        who = np.array([[3, 0], [3, 1], [5, 0], [5, 1]])
        for name in ("axial", "sagittal"):
            np.savez(tmp_path / f"{name}.npz", images=rng.random((4, 20, 18), dtype=np.float32), subject_slice=who)
        found = load_ground_truth([tmp_path], subjects="subject_slice")
        assert [str(truth.source) for truth in found[:3]] == [
            "axial.npz, subject 3, slice 0", "axial.npz, subject 3, slice 1", "axial.npz, subject 5, slice 2",
        ]  # fmt: skip
        assert found[0].subject == found[4].subject != found[2].subject
        assert load_ground_truth([tmp_path / "axial.npz"], subjects="nobody")[0].subject == ""
        np.savez(tmp_path / "axial.npz", images=rng.random((4, 20, 18), dtype=np.float32), subject_slice=who[:3])
        with pytest.raises(InputError, match=r"'subject_slice' names 3 subjects, the file has 4 slices"):
            load_ground_truth([tmp_path / "axial.npz"], subjects="subject_slice")

    def test_masks_and_damaged_files_are_left_out(self, tmp_path, caplog):
        rng = np.random.default_rng(0)
        np.save(tmp_path / "image.npy", rng.random((20, 18), dtype=np.float32))
        np.save(tmp_path / "mask.npy", (rng.random((20, 18)) < 0.3).astype(np.float32))
        (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY" + bytes(20))
        with pytest.raises(InputError, match=r"damaged.npy"):
            load_ground_truth([tmp_path])
        (truth,) = load_ground_truth([tmp_path], on_damage="skip")
        assert truth.source.volume == "image.npy"
        messages = [record.getMessage() for record in caplog.records]
        assert any(
            "1 files hold two values only, so they are masks and left out: mask.npy" in text for text in messages
        )
        assert any(text.startswith("left out: ") and "damaged.npy" in text for text in messages)

    def test_ct_numbers_become_attenuation(self, shared_data):
        folder = shared_data / "ct_images" / "pydicom_small"
        files = sorted(folder.glob("*CT*.dcm")) or sorted(folder.glob("*.dcm"))
        found = load_ground_truth(files[:1])
        assert float(found[0].image.min()) >= 0
        assert float(found[0].image.max()) < 0.2

    def test_mistakes(self, tmp_path):
        with pytest.raises(InputError, match=r"nothing"):
            load_ground_truth([tmp_path / "nothing.nii"])
        with pytest.raises(InputError, match=r"no image with any signal; expected files or folders"):
            load_ground_truth([tmp_path])
        with pytest.raises(InputError, match=r"an empty list: no image"):
            load_ground_truth([])
