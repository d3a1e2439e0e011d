"""k-space and sinograms through MONAI's LoadImage."""

import h5py
import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch
from monai.transforms import LoadImage, LoadImaged

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.io import read_scan
from medrecon.pipelines import KSpaceReader, Reconstructd, SinogramReader
from medrecon.pipelines.measured import measured_scan


def kspace_loader(**options):
    return LoadImaged(keys="kspace", reader="KSpaceReader", dtype=np.complex64, ensure_channel_first=True, **options)


@pytest.mark.parametrize("kind", ["single", "multi", "brain", "test"])
def test_kspace_is_a_complex_metatensor(fastmri_file, kind):
    path = fastmri_file(kind)
    kspace = kspace_loader()({"kspace": path})["kspace"]
    scan = read_scan(path)
    assert isinstance(kspace, MetaTensor)
    assert kspace.dtype == torch.complex64
    expected = torch.stack([scan.measurements[index] for index in range(3)], 1)
    assert torch.equal(kspace.as_tensor(), expected)
    assert torch.equal(kspace.affine, torch.tensor(scan.geometry.affine))
    assert np.array_equal(kspace.meta["original_affine"], scan.geometry.affine)
    assert kspace.meta["space"] == "RAS"
    assert kspace.meta["filename_or_obj"] == str(path)
    assert kspace.meta["modality"] == "MR"
    assert kspace.meta["oriented"] is False
    assert tuple(kspace.meta["recon_matrix"]) == scan.acquisition.matrix == (32, 32)
    assert kspace.meta["header_echo_time"] == 22
    assert "SECRET" not in str(kspace.meta)


def test_sampling_mask_is_small(fastmri_file):
    def mask(kind):
        return kspace_loader()({"kspace": fastmri_file(kind)})["kspace"].meta.get("sampling_mask")

    columns = np.arange(48)
    expected = (columns % 4 == 0) | ((columns >= 22) & (columns < 26))
    assert mask("test").dtype == np.uint8
    assert np.array_equal(mask("test"), expected)
    assert mask("brain").tolist() == [0] * 2 + [1] * 28 + [0] * 2
    assert mask("multi") is None


@pytest.mark.parametrize("kind", ["multi", "test"])
def test_scan_comes_back(fastmri_file, kind):
    path = fastmri_file(kind)
    kspace = kspace_loader()({"kspace": path})["kspace"]
    original, rebuilt = read_scan(path), measured_scan(kspace.as_tensor(), kspace.meta)
    assert torch.equal(rebuilt.measurements[2], original.measurements[2])
    assert np.array_equal(rebuilt.geometry.affine, original.geometry.affine)
    assert rebuilt.geometry.oriented == original.geometry.oriented
    assert (rebuilt.header, rebuilt.notes, rebuilt.modality) == (original.header, original.notes, original.modality)
    assert rebuilt.acquisition.matrix == original.acquisition.matrix
    if kind == "test":
        assert torch.equal(rebuilt.acquisition.mask, original.acquisition.mask)


def test_only_the_slices_asked_for_are_read(fastmri_file):
    path = fastmri_file("multi")
    with h5py.File(path, "a") as file:
        file["kspace"][0, 0, 0, 0] = np.nan
    with pytest.raises(NumericalError, match="slice 0"):
        LoadImage(reader=KSpaceReader(), dtype=np.complex64)(path)
    part = LoadImage(reader=KSpaceReader(slices=range(1, 3)), dtype=np.complex64)(path)
    scan = read_scan(path)
    assert part.shape == (4, 2, 64, 48)
    assert torch.equal(part.as_tensor()[:, 1], scan.measurements[2])
    assert part.affine[:3, 3].tolist() == pytest.approx((scan.geometry.affine @ [0, 0, 1, 1])[:3])
    assert part.meta["slices"].tolist() == [1, 3, 1]
    zeroed = LoadImage(reader=KSpaceReader(nonfinite="zero"), dtype=np.complex64)(path)
    assert zeroed[0, 0, 0, 0] == 0


def test_plain_arrays_need_axes(tmp_path):
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((2, 9, 11)) + 1j).astype(np.complex64)
    path = tmp_path / "kspace.npy"
    np.save(path, kspace)
    np.save(tmp_path / "mask.npy", np.ones((9, 11)))
    assert not KSpaceReader().verify_suffix((str(path),))
    assert LoadImage(dtype=None)(path).shape == (2, 9, 11)  # MONAI's own reader
    reader = KSpaceReader(axes="coil,y,x", mask=tmp_path / "mask.npy")
    assert reader.verify_suffix((str(path),))
    array, meta = reader.get_data(reader.read((str(path),)))
    assert np.array_equal(array[:, 0], kspace)
    assert meta["sampling_mask"].tolist() == [1] * 11


def test_maps_and_calibration_travel(tmp_path):
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(2, 16, 15, dtype=torch.complex64, generator=generator).numpy()
    for name in ("kspace", "maps", "calibration"):
        np.save(tmp_path / f"{name}.npy", kspace)
    maps, calibration = ({name: tmp_path / f"{name}.npy"} for name in ("maps", "calibration"))
    for side in (maps, calibration):
        reader = KSpaceReader(axes="coil,y,x", **side)
        array, meta = reader.get_data(reader.read(str(tmp_path / "kspace.npy")))
        rebuilt = measured_scan(torch.from_numpy(array), meta).acquisition
        if side is maps:
            assert meta["coil_maps"].shape[-3:] == (2, 16, 15)
            assert torch.equal(rebuilt.maps.reshape(2, 16, 15), torch.from_numpy(kspace))
        else:
            assert np.array_equal(rebuilt.calibration[0].numpy(), kspace)


def test_sinogram(sinogram_file):
    load = LoadImaged(keys="sino", reader="SinogramReader", ensure_channel_first=True)
    sinogram = load({"sino": sinogram_file})["sino"]
    scan = read_scan(sinogram_file)
    assert sinogram.shape == (1, 2, 30, 61)
    assert sinogram.dtype == torch.float32
    assert torch.equal(sinogram.as_tensor()[:, 1], scan.measurements[1])
    assert torch.equal(sinogram.affine, torch.tensor(scan.geometry.affine))
    assert sinogram.meta["modality"] == "CT"
    assert sinogram.meta["mu_water"] == 0.02
    rebuilt = measured_scan(sinogram.as_tensor(), sinogram.meta).acquisition
    assert rebuilt.config() == scan.acquisition.config()
    assert torch.equal(rebuilt.angles, scan.acquisition.angles)


def test_selection_by_content(fastmri_file, sinogram_file, tmp_path):
    kspace, foreign, text = fastmri_file("single"), tmp_path / "mine.h5", tmp_path / "notes.h5"
    with h5py.File(foreign, "w") as file:
        file["weights"] = np.zeros((3, 4))
    text.write_text("no HDF5 at all")
    nifti = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)), nifti)
    claims = {KSpaceReader: kspace, SinogramReader: sinogram_file}
    for reader, own in claims.items():
        for path in (kspace, sinogram_file, foreign, text, nifti, tmp_path, tmp_path / "missing.h5"):
            assert reader().verify_suffix((str(path),)) == (path == own), path
        assert reader().verify_suffix((str(own), str(own)))
        assert not reader().verify_suffix((str(own), str(foreign)))
        assert not reader().verify_suffix(())
    load = LoadImage(dtype=None)
    assert load(kspace).shape == (1, 3, 64, 48)
    assert load(sinogram_file).shape == (1, 2, 30, 61)
    assert load(nifti).shape == (3, 4, 5)


def test_errors_reach_the_user(fastmri_file, sinogram_file, tmp_path):
    """MONAI asks other readers after a failed ``read``; ours fails where it is not asked any more."""
    path = fastmri_file("multi")
    with pytest.raises(InputError, match="does not exist"):
        kspace_loader()({"kspace": tmp_path / "none.h5"})
    with pytest.raises(InputError, match="holds sinograms; read it with SinogramReader"):
        kspace_loader()({"kspace": sinogram_file})
    with pytest.raises(InputError, match="holds k-space; read it with KSpaceReader"):
        LoadImage(reader=SinogramReader())(path)
    with pytest.raises(UsageError, match="one file an item, got 2"):
        kspace_loader()({"kspace": [path, path]})
    with pytest.raises(UsageError, match="do not lie in this scan of 3"):
        LoadImage(reader=KSpaceReader(slices=range(1, 5)))(path)
    with pytest.raises(UsageError, match="rising range"):
        KSpaceReader(slices=range(3, 1))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated"):
        kspace_loader()({"kspace": path})


def test_dropped_imaginary_part_is_named(fastmri_file):
    with pytest.warns(match="imaginary"):
        item = LoadImaged(keys="kspace", reader="KSpaceReader")({"kspace": fastmri_file("multi")})
    with pytest.raises(UsageError, match=r"dtype=np\.complex64"):
        Reconstructd("kspace")(item)


@pytest.mark.parametrize("workers", [0, 1])
def test_cache_and_loader_round_trip(fastmri_file, workers):
    path = fastmri_file("test")
    data = CacheDataset([{"kspace": path}] * 2, kspace_loader(), progress=False, num_workers=1)
    loader = DataLoader(data, batch_size=2, num_workers=workers)
    (batch,) = list(loader)
    assert batch["kspace"].shape == (2, 4, 3, 64, 48)
    first, second = decollate_batch(batch)
    direct = Reconstructd("kspace", "rss")(kspace_loader()({"kspace": path}))["kspace"]
    for item in (first, second):
        image = Reconstructd("kspace", "rss")(item)["kspace"]
        assert torch.equal(image.as_tensor(), direct.as_tensor())
        assert torch.equal(image.affine, direct.affine)
        assert image.meta["header_echo_time"] == 22


def test_sinogram_survives_collation(sinogram_file):
    load = LoadImaged(keys="sino", reader="SinogramReader", ensure_channel_first=True)
    batch = next(iter(DataLoader(CacheDataset([{"sino": sinogram_file}] * 2, load, progress=False), batch_size=2)))
    direct = Reconstructd("sino", "fbp")(load({"sino": sinogram_file}))["sino"]
    for item in decollate_batch(batch):
        assert torch.equal(Reconstructd("sino", "fbp")(item)["sino"].as_tensor(), direct.as_tensor())
