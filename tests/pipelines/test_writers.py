"""DICOM and HDF5 through MONAI's SaveImage are what ``medrecon reconstruct`` writes."""

import json

import h5py
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SaveImage, SaveImaged
from monai.transforms.spatial.dictionary import Flipd

from medrecon.cli import main
from medrecon.errors import UsageError
from medrecon.io import load_image
from medrecon.pipelines import DicomWriter, HDF5Writer, Reconstructd


@pytest.fixture
def item(fastmri_file):
    load = LoadImaged("raw", reader="KSpaceReader", dtype=np.complex64)
    return Reconstructd("raw", "rss")(load({"raw": fastmri_file("multi")}))


def save(item, folder, suffix, dtype=None, **options):
    SaveImaged(
        "raw",
        output_dir=folder,
        output_ext=suffix,
        output_dtype=dtype,
        separate_folder=False,
        print_log=False,
        **options,
    )(item)


def test_dicom_series(item, tmp_path):
    save(item, tmp_path, ".dcm")
    folder = tmp_path / "file_multi_trans"
    assert sorted(path.name for path in folder.iterdir()) == [f"file_multi_trans_000{n}.dcm" for n in (1, 2, 3)]
    main(["reconstruct", item["raw"].meta["filename_or_obj"], "-o", str(tmp_path / "cli.dcm"), "-m", "rss", "--quiet"])
    for number in (1, 2, 3):
        ours = pydicom.dcmread(folder / f"file_multi_trans_000{number}.dcm")
        cli = pydicom.dcmread(tmp_path / "cli" / f"cli_000{number}.dcm")
        assert np.array_equal(ours.pixel_array, cli.pixel_array)
        assert ours.Modality == "MR"
        assert ours.EchoTime == cli.EchoTime == 22
        assert ours.ImagePositionPatient == cli.ImagePositionPatient
        assert ours.PixelSpacing == cli.PixelSpacing
    image = load_image(folder)
    assert np.allclose(image.geometry.affine, item["raw"].affine)
    record = json.loads((tmp_path / "file_multi_trans.json").read_text())
    assert record["provenance"]["method"] == "rss"
    assert record["acquisition"]["repetition_time"] == 2800
    save(item, tmp_path, ".dcm")  # again: replaced


def test_dicom_slice(item, tmp_path):
    item["raw"] = item["raw"][..., :1]
    save(item, tmp_path, ".dcm")
    slice_ = pydicom.dcmread(tmp_path / "file_multi_trans.dcm")
    assert (slice_.Rows, slice_.Columns) == (32, 32)


def test_hdf5(item, tmp_path):
    for dtype in (None, np.float32):
        save(item, tmp_path, ".h5", dtype)
        with h5py.File(tmp_path / "file_multi_trans.h5") as file:
            assert list(file) == ["reconstruction"]
            assert np.array_equal(file["reconstruction"][()], item["raw"].numpy()[0].transpose(2, 1, 0))
            assert np.array_equal(file["reconstruction"].attrs["affine"], item["raw"].affine)
            assert file["reconstruction"].attrs["modality"] == b"MR"
            assert not file["reconstruction"].attrs["oriented"]


def test_orientation_follows_spatial_transforms(item, tmp_path):
    flipped = Flipd("raw", spatial_axis=0)(item)
    save(flipped, tmp_path, ".h5")
    image = load_image(tmp_path / "file_multi_trans.h5")
    assert np.array_equal(image.array, item["raw"].numpy()[0].transpose(2, 1, 0)[..., ::-1])
    assert np.allclose(image.geometry.affine, flipped["raw"].affine)


def test_ct_needs_hounsfield_units(sinogram_file, tmp_path):
    def reconstructed(**options):
        load = LoadImaged("raw", reader="SinogramReader", **options)
        return Reconstructd("raw", "fbp")(load({"raw": sinogram_file}))

    with h5py.File(sinogram_file, "a") as file:
        file["sinogram"].attrs["output.unit"] = np.bytes_(b"mu")
        del file["sinogram"].attrs["output.mu_water"]
    item = reconstructed()
    assert item["raw"].meta["unit"] == "1/mm"
    with pytest.raises(RuntimeError, match=r"SinogramReader\(mu_water=0\.02\)"):
        save(item, tmp_path, ".dcm")
    item = reconstructed(mu_water=0.02)
    assert item["raw"].meta["unit"] == "HU"
    save(item, tmp_path, ".dcm")
    first = pydicom.dcmread(tmp_path / "sino_trans" / "sino_trans_0001.dcm")
    assert first.Modality == "CT"
    values = first.pixel_array * first.RescaleSlope + first.RescaleIntercept
    assert np.allclose(values, item["raw"].numpy()[0, :, :, 0].T, atol=0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int16])
def test_eight_bits_are_refused(item, tmp_path, dtype):
    with pytest.raises(RuntimeError, match="output_dtype=None"):
        save(item, tmp_path, ".dcm", dtype)
    assert not list(tmp_path.rglob("*.dcm"))


def test_images_of_other_origin(tmp_path):
    image = MetaTensor(torch.rand(1, 6, 5), affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))
    saver = SaveImage(tmp_path, "x", ".dcm", None, separate_folder=False, print_log=False)
    with pytest.raises(RuntimeError, match="the metadata say OT"):
        saver(image, filename=tmp_path / "a")
    saver.set_options(init_kwargs={"modality": "MR"})
    saver(image, filename=tmp_path / "a")
    assert pydicom.dcmread(tmp_path / "a.dcm").PixelSpacing == [2, 1]
    SaveImage(tmp_path, "x", ".h5", separate_folder=False, print_log=False)(
        torch.rand(1, 6, 5), filename=tmp_path / "b"
    )
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["reconstruction"].shape == (1, 5, 6)
        assert not file["reconstruction"].attrs["oriented"]


def test_bad_calls_are_named(tmp_path):
    with pytest.raises(UsageError, match="output_dtype=uint8"):
        DicomWriter(output_dtype=np.uint8)
    with pytest.raises(UsageError, match="output_dtype=float64"):
        HDF5Writer(output_dtype=torch.float64)
    with pytest.raises(UsageError, match="scale=255"):
        HDF5Writer(scale=255)
    writer = HDF5Writer()
    with pytest.raises(UsageError, match="2 channels"):
        writer.set_data_array(np.zeros((2, 4, 5)))
    with pytest.raises(UsageError, match="expected an image"):
        writer.set_data_array(np.zeros((1, 2, 3, 4, 5)))
    with pytest.raises(UsageError, match="does not resample"):
        writer.set_metadata({}, resample=True)
    writer.set_data_array(np.zeros((4, 5)), channel_dim=None)
    with pytest.raises(UsageError, match="HDF5Writer writes hdf5"):
        writer.write(tmp_path / "x.npz")
