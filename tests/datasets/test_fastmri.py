"""Measured volumes as training data, against float64 restatements of what fastMRI does with them."""

import hashlib
import itertools
import os
import shutil

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medrecon.datasets import FastMRIDataset, Source, VolumeBatchSampler, collate, index_folder
from medrecon.datasets.fastmri import read_slice
from medrecon.errors import InputError, OperatorError, UsageError
from medrecon.io import write_fastmri
from medrecon.operators.coils import low_resolution_maps
from medrecon.operators.samplers import make_sampler

KINDS = {"multi": ("random", 4, 0.16), "single": ("random", 4, 0.08), "brain": ("equispaced-fraction", 2, 0.16)}
FORK = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))


def lines(kind="multi"):
    name, acceleration, fraction = KINDS[kind]
    return make_sampler(name, {"acceleration": acceleration, "center_fraction": fraction})


def dataset(path, kind="multi", **options):
    return FastMRIDataset(index_folder(path).volumes, lines(kind), **{"training": False, **options})


@pytest.fixture
def data_of(fastmri_file):
    """Factory: the data set of one file of a kind."""
    return lambda kind="multi", **options: dataset(fastmri_file(kind), kind, **options)


@pytest.fixture
def odd_file(tmp_path):
    """Factory: a noisy disc behind coils on 37 x 29 samples, reconstructed on 21 x 18."""

    def make(coils, name="odd.h5", columns=29):
        rng = np.random.default_rng(3)
        y, x = np.mgrid[-1:1:37j, -1 : 1 : columns * 1j]
        angles = 2 * np.pi * np.arange(coils) / coils
        maps = np.stack([np.exp(1j * a - ((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 4) for a in angles])
        images = 1e-3 * maps * ((x / 0.6) ** 2 + (y / 0.5) ** 2 < 1) * (1 + x * y)
        noise = rng.standard_normal((2, 2, *images.shape))
        kspace = centred(np.fft.fft2, np.stack([images, 2 * images])) + 1e-6 * (noise[0] + 1j * noise[1])
        path = tmp_path / name
        write_fastmri(path, torch.from_numpy(kspace.astype(np.complex64)), matrix=(21, 18), acquisition="AXT1")
        return path

    return make


def centred(transform, x, axes=(-2, -1)):
    return np.fft.fftshift(transform(np.fft.ifftshift(x, axes), norm="ortho", axes=axes), axes)


def coil_images(path, number, rows=None):
    """Return the images (C, rows, W) of the full k-space in double precision."""
    with h5py.File(path) as file:
        kspace = file["kspace"][number].astype(np.complex128)
    images = centred(np.fft.ifft2, kspace.reshape(-1, *kspace.shape[-2:]))
    top = (images.shape[1] - (rows or images.shape[1])) // 2
    return images[:, top : top + (rows or images.shape[1])]


def root_sum_of_squares(images, height, width):
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return np.sqrt((np.abs(images) ** 2).sum(0))[top : top + height, left : left + width]


def close(found, wanted, tolerance=1e-6):
    found = found.numpy() if isinstance(found, torch.Tensor) else found
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def restated_mask(name, width, file, accelerations, fractions):
    """fastMRI's masks of validation: the name of the file seeds numpy's RandomState."""
    random = np.random.RandomState(tuple(map(ord, file)))
    choice = random.randint(len(fractions))
    acceleration, low = accelerations[choice], round(width * fractions[choice])
    if name == "random":
        mask = random.uniform(size=width) < (width / acceleration - low) / (width - low)
    else:
        step = acceleration * (low - width) / (low * acceleration - width)
        mask = np.zeros(width, bool)
        mask[np.around(np.arange(random.randint(0, round(step)), width - 1, step)).astype(int)] = True
    start = (width - low + 1) // 2
    mask[start : start + low] = True
    return mask


class TestMasks:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_validation_are_those_of_fastmri(self, data_of, kind):
        data = data_of(kind)
        name, acceleration, fraction = KINDS[kind]
        (volume,) = data.volumes
        wanted = restated_mask(name, volume.columns, volume.path.name, [acceleration], [fraction])
        if kind == "brain":
            assert wanted[:2].any() or wanted[30:].any()  # else the padding is not tested
            wanted[:2] = wanted[30:] = False
        drawn = lines(kind).draw_for_file((volume.rows, volume.columns), volume.path.name)[0].numpy()
        drawn[: volume.acquired[0]] = drawn[volume.acquired[1] :] = False
        assert (drawn == wanted).all()
        for epoch in (0, 5):
            data.set_epoch(epoch)
            for index in range(len(data)):
                sample = data[index]
                assert (sample.operator.mask[0].numpy() == wanted).all()
                assert ((sample.measurements[0].abs().amax((0, 1)) > 0).numpy() == wanted).all()
                assert sample.source == Source(volume.path.name, index, volume.acquisition, acceleration)

    def test_golden_value(self, tmp_path):
        """Of the fastMRI package itself, for a name and width of the knee data."""
        kspace = torch.ones(1, 1, 16, 368, dtype=torch.complex64)
        write_fastmri(tmp_path / "file1000000.h5", kspace)
        sampler = make_sampler("random", {"acceleration": 4, "center_fraction": 0.08})
        mask = FastMRIDataset(index_folder(tmp_path).volumes, sampler, training=False)[0].operator.mask[0, 0]
        assert int(mask.sum()) == 88
        digest = hashlib.sha256(mask.numpy().astype(np.uint8).tobytes()).hexdigest()
        assert digest.startswith("c814b1134c27f1ff")

    def test_several_accelerations(self, fastmri_folder):
        folder = fastmri_folder("single", 4, 1)
        sampler = make_sampler("random", {"acceleration": [3, 5], "center_fraction": [0.16, 0.08]})
        data = FastMRIDataset(index_folder(folder).volumes, sampler, training=False)
        wanted = [restated_mask("random", 48, f"file{n:03}.h5", [3, 5], [0.16, 0.08]) for n in range(4)]
        assert all((data[n].operator.mask[0, 0].numpy() == wanted[n]).all() for n in range(4))
        assert {data[n].source.acceleration for n in range(4)} == {3, 5}

    def test_of_training_differ_between_epochs_slices_and_seeds(self, fastmri_file):
        path = fastmri_file("single")
        found = set()
        for seed, epoch in itertools.product((0, 1), (0, 1)):
            data = dataset(path, "single", training=True, seed=seed)
            data.set_epoch(epoch)
            found |= {tuple(data[index].operator.mask[0, 0].tolist()) for index in range(3)}
        assert len(found) == 12

    def test_of_training_leave_the_padding_out(self, data_of):
        data = data_of("brain", training=True)
        for epoch in range(20):
            data.set_epoch(epoch)
            mask = data[0].operator.mask[0, 0]
            assert not mask[:2].any()
            assert not mask[30:].any()

    def test_other_samplers_are_seeded_by_the_name_as_well(self, fastmri_folder):
        volumes = index_folder(fastmri_folder("multi", 2, 2)).volumes
        sampler = make_sampler("variable-density-lines", {"acceleration": 3})
        data = FastMRIDataset(volumes, sampler, training=False)
        masks = [data[index].operator.mask for index in range(4)]
        data.set_epoch(3)
        assert torch.equal(masks[0], masks[1])
        assert torch.equal(masks[2], masks[3])
        assert not torch.equal(masks[0], masks[2])
        assert torch.equal(data[0].operator.mask, masks[0])
        assert data[0].source.acceleration is None
        training = FastMRIDataset(volumes, sampler, training=True)
        assert not torch.equal(training[0].operator.mask, training[1].operator.mask)

    def test_points_are_refused(self, fastmri_file):
        sampler = make_sampler("variable-density-points", {"acceleration": 4})
        data = FastMRIDataset(index_folder(fastmri_file("single")).volumes, sampler, training=True, on_damage="skip")
        with pytest.raises(UsageError, match="the mask must undersample the phase encoding only, as that of lines"):
            data[0]

    @FORK
    def test_repeat_for_equal_seed_epoch_and_index_whatever_the_workers(self, fastmri_file):
        path = fastmri_file("multi")
        data = dataset(path, training=True, augment=True, readout_patch=17, seed=3)
        loaders = [
            DataLoader(data, batch_size=1, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0)
            for workers in (0, 1, 2)
        ]
        for epoch in (1, 0):
            data.set_epoch(epoch)
            again = dataset(path, training=True, augment=True, readout_patch=17, seed=3)
            again.set_epoch(epoch)
            wanted = [again[index] for index in (2, 1, 0)][::-1]  # the order of calls does not matter
            for loader in loaders:
                for batch, sample in zip(loader, wanted, strict=True):
                    assert torch.equal(batch.operator.mask, sample.operator.mask)
                    assert close(batch.measurements, sample.measurements.numpy())
                    assert close(batch.target, sample.target.numpy(), 1e-4)


class TestNumbers:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("number", [0, 2])
    def test_against_float64(self, data_of, kind, number):
        data = data_of(kind)
        check_numbers(data, data.volumes[0].path, number)

    @pytest.mark.parametrize("coils", [1, 3])
    @pytest.mark.parametrize("crop", [True, False])
    def test_odd_sizes(self, odd_file, coils, crop):
        path = odd_file(coils)
        data = dataset(path, remove_oversampling=crop)
        check_numbers(data, path, 1, rows=21 if crop else 37)
        assert data[1].reference.shape == (1, 21, 18)
        assert close(data[1].reference[0], root_sum_of_squares(coil_images(path, 1), 21, 18))
        assert data.shape_of(1) == (coils, 21 if crop else 37, 29, 21, 18)
        assert data.volume_of(1) == "odd.h5"

    def test_single_coil_reference_is_the_emulated_one(self, fastmri_file):
        path = fastmri_file("single")
        with h5py.File(path, "r+") as file:
            wanted = file["reconstruction_esc"][:]
            file["reconstruction_rss"][...] = 7  # single-coil files have it as well: not the one that is meant
        data = dataset(path, "single")
        for index in range(3):
            sample = data[index]
            assert (sample.reference[0].numpy() == wanted[index]).all()
            assert close(sample.target.abs()[0, 0, :, 8:40], wanted[index])

    @pytest.mark.parametrize("kind", ["multi", "brain"])
    def test_multi_coil_reference_is_the_root_sum_of_squares(self, data_of, kind):
        data = data_of(kind)
        with h5py.File(data.volumes[0].path) as file:
            wanted = file["reconstruction_rss"][:]
        for index in range(3):
            assert (data[index].reference[0].numpy() == wanted[index]).all()
            assert close(wanted[index], root_sum_of_squares(coil_images(data.volumes[0].path, index), 32, 32))

    def test_target_explains_the_measurements(self, data_of):
        for kind, most in (("single", 1e-6), ("multi", 0.1), ("brain", 0.1)):
            assert unexplained(data_of(kind)[1]) < most

    def test_maps_come_from_the_calibration_lines_of_the_cropped_slice(self, data_of):
        data = data_of("multi")
        kspace = centred(np.fft.fft2, coil_images(data.volumes[0].path, 1, 32))
        low = round(48 * 0.16)
        start = (48 - low + 1) // 2
        calibration = torch.from_numpy(kspace[:, 4:28, start : start + low])  # 24 rows at most
        wanted = low_resolution_maps(calibration, (32, 48))
        found = data[1].operator.maps
        images = torch.from_numpy(coil_images(data.volumes[0].path, 1, 32))
        energy = torch.linalg.vector_norm(images, dim=0)
        assert float((found - wanted).abs().amax((0, 1, 2))[energy > 0.1 * energy.max()].max()) < 1e-4

    @pytest.mark.parametrize("maps", ["low-resolution", "walsh", "espirit"])
    def test_maps_know_nothing_of_the_lines_that_are_left_out(self, fastmri_file, tmp_path, maps):
        path = fastmri_file("multi")
        before = dataset(path, maps=maps)[0]
        low = round(48 * 0.16)
        start = (48 - low + 1) // 2
        with h5py.File(path, "r+") as file:
            kspace = file["kspace"][:]
            kspace[..., :start] *= 3
            kspace[..., start + low :] *= -2
            file["kspace"][...] = kspace
        os.utime(path, ns=(1, 1))
        after = dataset(path, maps=maps)[0]
        assert not torch.allclose(after.target, before.target, rtol=0.1)
        assert torch.allclose(after.operator.maps, before.operator.maps, atol=1e-5)

    def test_without_oversampling_to_remove(self, data_of):
        full, cropped = data_of("single", remove_oversampling=False)[0], data_of("single")[0]
        assert full.target.shape == (1, 1, 64, 48)
        assert close(full.target[:, :, 16:48], cropped.target.numpy())
        assert torch.equal(full.reference, cropped.reference)

    def test_no_reference_in_the_file(self, fastmri_file):
        path = fastmri_file("multi")
        with h5py.File(path, "r+") as file:
            wanted = file["reconstruction_rss"][1]
            del file["reconstruction_rss"]
        assert close(dataset(path)[1].reference[0], wanted)


def check_numbers(data, path, number, rows=32):
    """y_c = M F x_c and x = Σ s̄_c x_c / Σ |s_c|², with the rows of the field of view only."""
    sample = data[number]
    images = coil_images(path, number, rows)
    mask = sample.operator.mask[0].numpy()
    assert 0 < mask.sum() < mask.size
    assert close(sample.measurements[0], centred(np.fft.fft2, images) * mask)
    maps = sample.operator.maps[0, 0].numpy().astype(np.complex128)
    assert close(sample.target[0, 0], (maps.conj() * images).sum(0) / (np.abs(maps) ** 2).sum(0))
    if len(images) == 1:
        assert np.abs(maps - 1).max() < 1e-6


def unexplained(sample):
    return float((sample.operator(sample.target) - sample.measurements).norm() / sample.measurements.norm())


class TestAugmentation:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_consistent(self, fastmri_file, kind):
        """Turned and mirrored images, maps and references belong together; margins here are even on all sides."""
        path = fastmri_file(kind)
        plain, data = (dataset(path, kind, training=True, augment=augment) for augment in (False, True))
        seen, phases = set(), set()
        for epoch in range(24):
            plain.set_epoch(epoch)
            data.set_epoch(epoch)
            before, after = plain[1], data[1]
            assert torch.equal(before.operator.mask, after.operator.mask)
            assert unexplained(after) == pytest.approx(unexplained(before), rel=0.35, abs=1e-6)
            images = coil_images(path, 1, 32)
            flips = [
                axes
                for axes in ((), (-2,), (-1,), (-2, -1))
                if close(after.reference[0], np.flip(before.reference[0].numpy(), axes), 1e-5)
            ]
            assert len(flips) == 1
            turned = np.flip(images, flips[0])
            maps = after.operator.maps[0, 0].numpy().astype(np.complex128)
            unturned = (maps.conj() * turned).sum(0) / (np.abs(maps) ** 2).sum(0)
            peak = np.unravel_index(np.abs(unturned).argmax(), unturned.shape)
            phase = after.target[0, 0].numpy()[peak] / unturned[peak]
            assert abs(phase) == pytest.approx(1, abs=1e-5)
            assert close(after.target[0, 0], phase * unturned, 1e-5)
            assert close(
                after.measurements[0], phase * centred(np.fft.fft2, turned) * after.operator.mask[0].numpy(), 1e-5
            )
            seen.add(flips[0])
            phases.add(round(float(np.angle(phase)), 3))
        assert len(seen) == 4
        assert len(phases) > 20

    @pytest.mark.parametrize("coils", [1, 3])
    def test_odd_sizes(self, odd_file, coils):
        """Mirrored odd margins move the crop by a pixel, so the reference is computed anew."""
        path = odd_file(coils)
        data = dataset(path, training=True, augment=True)
        flipped = set()
        for epoch in range(16):
            data.set_epoch(epoch)
            sample = data[0]
            images = coil_images(path, 0, 21)
            (flips,) = (
                axes
                for axes in ((), (-2,), (-1,), (-2, -1))
                if close(sample.reference[0], root_sum_of_squares(np.flip(images, axes), 21, 18), 1e-5)
            )
            flipped.add(flips)
            if coils == 1:
                assert close(sample.target.abs()[0, 0, :, 5:23], sample.reference[0].numpy(), 1e-5)
        assert len(flipped) == 4

    @pytest.mark.parametrize(("kind", "patch"), [("multi", 17), ("single", 32), ("brain", 5)])
    def test_readout_patch(self, fastmri_file, kind, patch):
        path = fastmri_file(kind)
        whole = dataset(path, kind, training=True)
        data = dataset(path, kind, training=True, readout_patch=patch)
        images = coil_images(path, 2, 32)
        tops = set()
        for epoch in range(12):
            whole.set_epoch(epoch)
            data.set_epoch(epoch)
            sample, full = data[2], whole[2]
            windows = [full.target[:, :, top : top + patch] for top in range(33 - patch)]
            (top,) = (top for top, window in enumerate(windows) if close(sample.target, window.numpy(), 1e-5))
            window = images[:, top : top + patch]
            assert close(sample.measurements[0], centred(np.fft.fft2, window) * full.operator.mask[0, 0].numpy())
            assert close(sample.operator.maps, full.operator.maps[:, :, :, top : top + patch].numpy())
            assert close(sample.reference[0], root_sum_of_squares(window, patch, 32))
            assert data.shape_of(2)[1] == whole.shape_of(2)[1]
            tops.add(top)
        assert len(tops) > (4 if patch < 32 else 0)


class TestChoice:
    @pytest.mark.parametrize(
        ("share", "wanted"),
        [
            ((0.0, 1.0), [0, 1, 2, 3, 4, 5, 6]),
            ((0.2, 0.8), [2, 3, 4, 5]),
            ((0.0, 0.01), [0]),
            ((0.5, 0.51), [4]),
            ((0.99, 1.0), [6]),
        ],
    )
    def test_slices(self, fastmri_folder, share, wanted):
        data = dataset(fastmri_folder("single", 2, 7), "single", slices=share)
        assert [data[index].source.slice for index in range(len(data))] == 2 * wanted
        assert [data.volume_of(index) for index in range(len(data))] == [
            name for name in ("file000.h5", "file001.h5") for _ in wanted
        ]

    @pytest.mark.parametrize("share", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.8, 0.2)])
    def test_slices_that_are_no_range(self, fastmri_file, share):
        with pytest.raises(UsageError, match=r"slices is a range of fractions 0 <= low < high <= 1, got"):
            dataset(fastmri_file("single"), "single", slices=share)

    @pytest.mark.parametrize("patch", [0, 33])
    def test_patch_that_does_not_fit(self, fastmri_file, patch):
        message = f"readout_patch must lie between 1 and the rows of images, got {patch}; file_single.h5 has 32"
        with pytest.raises(UsageError, match=message):
            dataset(fastmri_file("single"), "single", readout_patch=patch)
        assert dataset(fastmri_file("single"), "single", readout_patch=33, remove_oversampling=False)[0] is not None

    def test_test_sets_are_left_out(self, fastmri_file):
        both = (*index_folder(fastmri_file("test")).volumes, *index_folder(fastmri_file("multi")).volumes)
        data = FastMRIDataset(both, lines(), training=True)
        assert {data.volume_of(index) for index in range(len(data))} == {"file_multi.h5"}
        with pytest.raises(
            InputError, match="none of 1 volumes can be trained on: they are undersampled, as test sets"
        ):
            FastMRIDataset(both[:1], lines(), training=True)


class TestBatches:
    def test_of_two(self, data_of):
        data = data_of("multi", training=True, augment=True)
        samples = [data[index] for index in (0, 2)]
        batch = collate(samples)
        assert batch.measurements.shape == (2, 4, 32, 48)
        assert batch.target.shape == (2, 1, 32, 48)
        assert batch.reference.shape == (2, 32, 32)
        assert torch.equal(batch.magnitude(), batch.reference)
        assert [source.slice for source in batch.sources] == [0, 2]
        image = torch.randn(2, 1, 32, 48, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        for index, sample in enumerate(samples):
            alone = sample.operator(image[index : index + 1])
            assert torch.allclose(batch.operator(image)[index : index + 1], alone, atol=1e-6)

    @FORK
    def test_of_a_mixed_folder(self, fastmri_folder, tmp_path):
        folder = fastmri_folder("multi", 2, 3)
        brain = fastmri_folder("brain", 1, 3, "brain")
        shutil.copy(brain / "file000.h5", folder / "file_brain.h5")
        data = dataset(folder, training=True)
        sampler = VolumeBatchSampler(data, 2, training=False)
        loader = DataLoader(data, batch_sampler=sampler, collate_fn=collate, num_workers=1)
        shapes = [tuple(batch.measurements.shape) for batch in loader]
        assert sorted(shapes) == [(1, 4, 32, 32), (2, 4, 32, 32), (2, 4, 32, 48), (2, 4, 32, 48), (2, 4, 32, 48)]
        with pytest.raises(OperatorError, match="one class and one shape"):
            collate([data[0], data[len(data) - 1]])

    def test_references_of_different_shapes(self, data_of):
        sample = data_of("single")[0]
        with pytest.raises(OperatorError, match=r"they have the shapes \[\(1, 32, 31\), \(1, 32, 32\)\]; use a batch"):
            collate([sample, sample._replace(reference=sample.reference[..., 1:])])
        with pytest.raises(OperatorError, match="reference images of one shape, some samples have none; use a batch"):
            collate([sample._replace(reference=None), sample])
        assert collate([sample._replace(reference=None)] * 2).reference is None


def stamped_like(path, volume, data):
    """Replace a file by other bytes of the same size and time, as a failing drive does."""
    path.write_bytes(data[: volume.size].ljust(volume.size, b"\0"))
    os.utime(path, ns=(volume.modified, volume.modified))


class TestDamage:
    """The second of three volumes of two slices is damaged after it was indexed."""

    WAYS = ("cut", "half", "header", "changed", "gone", "other")

    def damaged(self, folder, way, **options):
        data = dataset(folder, "single", **options)
        path = folder / "file001.h5"
        content = path.read_bytes()
        volume = data.volumes[1]
        if way == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif way == "half":
            stamped_like(path, volume, content[:4096])
        elif way == "header":
            stamped_like(path, volume, b"\0" * 64 + content[64:])
        elif way == "other":  # a healthy file of fewer rows
            other = folder / "other.tmp"
            write_fastmri(other, torch.ones(2, 1, 8, 48, dtype=torch.complex64))
            stamped_like(path, volume, other.read_bytes())
        elif way == "changed":
            os.utime(path, ns=(1, 1))
        else:
            path.unlink()
        return data

    @pytest.mark.parametrize(
        ("way", "message"),
        [
            ("cut", "file001.h5: has changed since training began; start again, or resume"),
            ("changed", "file001.h5: has changed since training began"),
            ("half", r"file001.h5, slice 1: (cannot be read|some columns of the k-space are empty)"),
            ("header", r"file001.h5, slice 1: cannot be read \(.*\); is the file complete\?"),
            ("other", r"file001.h5, slice 1: cannot be read \(.*\); is the file complete\?"),
            ("gone", r"file001.h5, slice 1: cannot be read \(.*\); is the file complete\?"),
        ],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_stop(self, fastmri_folder, way, message, training):
        data = self.damaged(fastmri_folder("single", 3, 2), way, training=training)
        with pytest.raises(InputError, match=message):
            data[3]
        assert data[4].source == Source("file002.h5", 0, "CORPD_FBK", 4)

    @FORK
    @pytest.mark.parametrize("way", ["cut", "header"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_skip_in_training(self, fastmri_folder, way, workers):
        data = self.damaged(fastmri_folder("single", 3, 2), way, training=True, on_damage="skip")
        loader = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=workers)
        read = [str(source) for batch in loader for source in batch.sources]
        assert read == [f"file{n}, slice {s}" for n, s in (
            ("000.h5", 0), ("000.h5", 1), ("002.h5", 0), ("002.h5", 0), ("002.h5", 0), ("002.h5", 1)
        )]  # fmt: skip
        assert data.damage.count == 3  # slice 0, then slice 1 in its place, and slice 1

    def test_skip_in_validation(self, fastmri_folder):
        data = self.damaged(fastmri_folder("single", 3, 2), "cut", training=False, on_damage="skip")
        samples = [data[index] for index in range(6)]
        assert [sample is None for sample in samples] == [False, False, True, True, False, False]
        assert data.damage.count == 2
        assert [source.volume for source in collate(samples[1:5]).sources] == ["file000.h5", "file002.h5"]
        assert collate(samples[2:4]) is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", ["single", "multi"])
    def test_not_finite(self, fastmri_file, kind, value):
        path = fastmri_file(kind)
        with h5py.File(path, "r+") as file:
            kspace = file["kspace"]
            place = (1, *(length - 1 for length in kspace.shape[1:]))
            kspace[place] = complex(0, value)
            kspace[(1, *(0 for _ in kspace.shape[1:]))] = complex(0, -value)  # must not cancel
        data = dataset(path, kind)
        assert data[0] is not None
        with pytest.raises(InputError, match=f"file_{kind}.h5, slice 1: the k-space holds NaN or Inf"):
            data[1]

    def test_huge_values_are_no_damage(self, tmp_path):
        kspace = torch.full((1, 1, 16, 32), 1e38, dtype=torch.complex64)
        write_fastmri(tmp_path / "huge.h5", kspace)
        (volume,) = index_folder(tmp_path).volumes
        assert torch.equal(read_slice(volume, 0)[0], kspace[0])

    def test_undersampled_after_all(self, fastmri_file):
        """Without a mask in the file only the slices themselves show it."""
        path = fastmri_file("multi")
        with h5py.File(path, "r+") as file:
            file["kspace"][2, :, :, 7] = 0
        data = dataset(path)
        assert data[1] is not None
        with pytest.raises(InputError, match="slice 2: some columns of the k-space are empty; expected fully sampled"):
            data[2]

    def test_single_zeros_are_no_damage(self, fastmri_file):
        path = fastmri_file("multi")
        with h5py.File(path, "r+") as file:
            file["kspace"][1, :, 32] = 0
            file["kspace"][1, :3] = 0
        assert dataset(path)[1] is not None

    def test_a_slice_of_zeros_in_the_centre(self, tmp_path):
        """No calibration region can be found: the file is at fault, and named."""
        kspace = torch.zeros(1, 2, 16, 32, dtype=torch.complex64)
        kspace[:, :, 0] = 1
        write_fastmri(tmp_path / "edge.h5", kspace)
        sampler = make_sampler("variable-density-lines", {"acceleration": 2})
        data = FastMRIDataset(index_folder(tmp_path).volumes, sampler, training=False)
        with pytest.raises(InputError, match=r"edge.h5, slice 0: .*calibration"):
            data[0]


def test_equal_names_in_two_folders(fastmri_folder):
    folders = [fastmri_folder("multi", 1, 2, name=name) for name in ("a", "b")]
    volumes = [volume for folder in folders for volume in index_folder(folder).volumes]
    data = FastMRIDataset(volumes, lines(), training=False)
    assert [data.volume_of(index) for index in range(4)] == ["a/file000.h5"] * 2 + ["b/file000.h5"] * 2
    assert all(data[index].source.volume == data.volume_of(index) for index in range(4))
    first, second = data[0], data[2]  # the mask goes by the name of the file, as fastMRI's does
    assert torch.equal(first.operator.mask, second.operator.mask)


@pytest.mark.parametrize("kind", ["multi", "single"])
def test_a_slice_without_signal(fastmri_file, kind):
    """Such slices exist at the ends of volumes: they are trained on and judged like all others."""
    path = fastmri_file(kind)
    with h5py.File(path, "r+") as file:
        for name in ("kspace", "reconstruction_rss"):
            file[name][0] = 0
        if kind == "single":
            file["reconstruction_esc"][0] = 0
    sample = dataset(path, kind)[0]
    for tensor in (sample.measurements, sample.target, sample.reference):
        assert not tensor.any()
    assert torch.isfinite(sample.operator(torch.ones_like(sample.target)).abs()).all()
