"""Measured files with references: what comes out is what was written."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from medrecon.datasets import ScanDataset, Source, VolumeBatchSampler, collate
from medrecon.errors import InputError
from medrecon.io import write_fastmri, write_native, write_sinogram
from medrecon.operators import BlockCompressedSensing, CartesianMRI, FanBeam2D, ParallelBeam2D
from medrecon.operators.coils import low_resolution_maps
from medrecon.simulation import brain_phantom

FORK = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def phantoms(count, shape, seed=0):
    return brain_phantom(count, shape, torch.Generator().manual_seed(seed))


def tomography(views, size=17):
    angles = torch.arange(views) * torch.pi / views
    return ParallelBeam2D((size, size + 2), angles, detector_count=25)


@pytest.fixture
def folder(tmp_path):
    """Three sinograms: two with the same geometry, one with more views."""
    for name, views, count in (("a", 7, 2), ("b", 7, 3), ("c", 11, 1)):
        operator = tomography(views)
        images = 0.02 * phantoms(count, (17, 19), len(name) + views)
        write_sinogram(tmp_path / f"{name}.h5", operator(images[:, None]), operator, reference=images)
    return tmp_path


def files_of(folder):
    return sorted(folder.glob("*.h5"))


def truths(name):
    views, count = {"a": (7, 2), "b": (7, 3), "c": (11, 1)}[name]
    return 0.02 * phantoms(count, (17, 19), 1 + views)


class TestSinograms:
    def test_samples(self, folder):
        shares = []
        data = ScanDataset(files_of(folder), training=True, progress=shares.append)
        assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
        assert len(data) == 6
        assert [data.volume_of(index) for index in range(6)] == ["a.h5"] * 2 + ["b.h5"] * 3 + ["c.h5"]
        for index, (name, number) in enumerate([("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2), ("c", 0)]):
            sample = data[index]
            assert torch.equal(sample.target, truths(name)[number][None, None])
            assert torch.allclose(sample.operator(sample.target), sample.measurements, atol=1e-6)
            assert sample.source == Source(f"{name}.h5", number)
            assert sample.reference is None
            assert data.shape_of(index) == (1, 11 if name == "c" else 7, 25, 1, 17, 19)

    def test_epochs_are_alike(self, folder):
        data = ScanDataset(files_of(folder)[:1], training=True)
        before = data[1]
        data.set_epoch(4)
        assert torch.equal(data[1].measurements, before.measurements)

    def test_batches(self, folder):
        data = ScanDataset(files_of(folder), training=False)
        batches = [collate([data[index] for index in batch]) for batch in VolumeBatchSampler(data, 4, training=False)]
        assert [batch.target.shape[0] for batch in batches] == [4, 1, 1]
        for batch in batches:
            assert torch.allclose(batch.operator(batch.target), batch.measurements, atol=1e-6)
            assert torch.equal(batch.magnitude(), batch.target[:, 0])

    @FORK
    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers(self, folder, workers):
        data = ScanDataset(files_of(folder), training=True)
        wanted = [data[index] for index in range(len(data))]
        loader = DataLoader(data, num_workers=workers, batch_size=1, collate_fn=collate)
        for batch, sample in zip(loader, wanted, strict=True):
            assert torch.equal(batch.measurements, sample.measurements)
            assert torch.equal(batch.target, sample.target)
            assert batch.sources == (sample.source,)
        assert torch.equal(data[0].measurements, wanted[0].measurements)  # the parent's files are still its own

    def test_another_process_opens_its_own_files(self, folder):
        data = ScanDataset(files_of(folder), training=True)
        again = pickle.loads(pickle.dumps(data))
        assert torch.equal(again[4].measurements, data[4].measurements)

    def test_more_files_than_are_kept_open(self, folder):
        images = 0.02 * phantoms(1, (17, 19))
        for index in range(4):
            operator = tomography(7)
            write_sinogram(folder / f"d{index}.h5", operator(images[:, None]), operator, reference=images)
        data = ScanDataset(files_of(folder), training=True)
        assert [data[index].source.volume for index in (0, 9, 2, 6, 5, 8, 0)] == [
            "a.h5", "d3.h5", "b.h5", "d0.h5", "c.h5", "d2.h5", "a.h5"
        ]  # fmt: skip


class TestNative:
    def test_real_and_complex(self, tmp_path):
        images = phantoms(2, (12, 16))
        coils = torch.randn(3, 5, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        operators = {
            "sensing": BlockCompressedSensing((1, 12, 16), 0.5, block_size=4),
            "coils": CartesianMRI(torch.arange(16) % 3 > 0, low_resolution_maps(coils, (12, 16))),
        }
        for name, operator in operators.items():
            path = tmp_path / f"{name}.h5"
            target = images[:, None].to(operator.image_dtype)
            write_native(path, operator(target), operator, reference=images)
            data = ScanDataset([path], training=True)
            assert data.shape_of(0) == (*operator.data_shape, 1, 12, 16)
            for index in range(2):
                sample = data[index]
                assert torch.equal(sample.target, target[index : index + 1])
                assert sample.target.dtype == operator.image_dtype
                assert torch.allclose(sample.operator(sample.target), sample.measurements, atol=1e-6)


class TestMistakes:
    def test_no_reference(self, tmp_path):
        operator = tomography(7)
        write_sinogram(tmp_path / "a.h5", torch.ones(1, *operator.data_shape), operator)
        with pytest.raises(InputError, match=r"a\.h5: holds no reference image, so nothing can be learned from it"):
            ScanDataset([tmp_path / "a.h5"], training=True)

    def test_kspace(self, fastmri_file, tmp_path):
        with pytest.raises(InputError, match=r"holds k-space, for which there is the data kind 'fastmri'"):
            ScanDataset([fastmri_file("multi")], training=True)
        write_fastmri(tmp_path / "k.h5", torch.ones(1, 1, 8, 8, dtype=torch.complex64))
        with pytest.raises(InputError, match=r"k\.h5: holds k-space"):
            ScanDataset([tmp_path / "k.h5"], training=True)

    def test_reference_of_another_size(self, tmp_path):
        operator = tomography(7)
        write_native(tmp_path / "a.h5", torch.ones(1, *operator.data_shape), operator, reference=torch.ones(1, 17, 18))
        with pytest.raises(InputError, match=r"the reference has \(17, 18\) pixels, the operator \(1, 17, 19\)"):
            ScanDataset([tmp_path / "a.h5"], training=True)

    def test_nothing(self):
        with pytest.raises(
            InputError, match="no files of measurements were found; expected sinograms with a reference"
        ):
            ScanDataset([], training=True)

    def test_a_file_that_is_absent(self, tmp_path):
        with pytest.raises(InputError, match=r"nothing\.h5"):
            ScanDataset([tmp_path / "nothing.h5"], training=True, on_damage="skip")


class TestDamage:
    """The file in the middle is cut after it was opened once; a copy of the data set opens it anew."""

    def cut(self, folder, **options):
        data = pickle.loads(pickle.dumps(ScanDataset(files_of(folder), **options)))
        content = (folder / "b.h5").read_bytes()
        (folder / "b.h5").write_bytes(content[: len(content) // 2])
        return data

    @pytest.mark.parametrize("training", [True, False])
    def test_stop(self, folder, training):
        data = self.cut(folder, training=training)
        assert data[1].source == Source("a.h5", 1)
        with pytest.raises(InputError, match=r"b\.h5"):
            data[2]

    def test_skip_in_training(self, folder):
        data = self.cut(folder, training=True, on_damage="skip")
        assert data[3].source == Source("c.h5", 0)
        assert data.damage.count == 2

    def test_skip_in_validation(self, folder):
        data = self.cut(folder, training=False, on_damage="skip")
        assert data[3] is None
        assert data.damage.count == 1
        assert collate([data[1], data[2]]).sources == (Source("a.h5", 1),)


def test_fan_beams(tmp_path):
    angles = torch.arange(9) * 2 * torch.pi / 9
    operator = FanBeam2D((13, 15), angles, source_origin=40, source_detector=80, detector_count=21, detector_pitch=2.0)
    images = 0.02 * phantoms(2, (13, 15))
    write_sinogram(tmp_path / "fan.h5", operator(images[:, None]), operator, reference=images)
    sample = ScanDataset([tmp_path / "fan.h5"], training=True)[1]
    assert isinstance(sample.operator, FanBeam2D)
    assert torch.allclose(sample.operator(sample.target), sample.measurements, atol=1e-6)
