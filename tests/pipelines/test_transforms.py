"""Reconstruction inside a MONAI pipeline gives what the command line gives."""

import json
import pickle

import h5py
import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Invertd, Lambdad, LoadImaged, SaveImaged
from monai.transforms.lazy.functional import apply_pending
from monai.transforms.spatial.dictionary import Flipd

from medrecon.cli import main
from medrecon.errors import NumericalError, OperatorError, UsageError
from medrecon.io import read_scan
from medrecon.models import build_model
from medrecon.operators import CartesianMRI, Inpainting
from medrecon.pipelines import KSpaceReader, Reconstruct, Reconstructd
from medrecon.reconstructors.plan import ReconstructionPlan
from medrecon.reconstructors.volume import reconstruct_scan


@pytest.fixture
def undersampled(fastmri_file):
    """Every second column and the 12 central ones, oversampled rows, 4 coils."""
    path = fastmri_file("multi")
    mask = np.arange(48) % 2 == 0
    mask[18:30] = True
    with h5py.File(path, "a") as file:
        file["kspace"][...] = file["kspace"][...] * mask
        file["mask"] = mask
    return path


def load(path, **options):
    reader = "SinogramReader" if path.name == "sino.h5" else "KSpaceReader"
    dtype = None if reader == "SinogramReader" else np.complex64
    return LoadImaged(keys="raw", reader=reader, dtype=dtype, ensure_channel_first=True, **options)({"raw": path})


@pytest.mark.parametrize("case", ["undersampled", "fully sampled", "single", "sinogram"])
def test_saved_nifti_is_what_the_command_line_writes(case, undersampled, fastmri_file, sinogram_file, tmp_path):
    path = {"undersampled": undersampled, "sinogram": sinogram_file}.get(case)
    if path is None:
        path = fastmri_file("brain" if case == "fully sampled" else "single")
    options = ["--method", "tv", "--iterations", "5"] if case == "undersampled" else []
    parameters = {"max_iter": 5} if options else None
    target = tmp_path / "cli.nii.gz"
    assert main(["reconstruct", str(path), "-o", str(target), "--device", "cpu", *options, "--quiet"]) in (0, None)
    item = Reconstructd("raw", "tv" if options else "auto", parameters)(load(path))
    SaveImaged("raw", output_dir=tmp_path, output_ext=".nii.gz", separate_folder=False, print_log=False)(item)
    ours, expected = nibabel.load(tmp_path / f"{path.stem}_trans.nii.gz"), nibabel.load(target)
    assert ours.shape == expected.shape
    assert np.array_equal(ours.affine, expected.affine)
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(expected.dataobj))
    assert np.asarray(ours.dataobj).dtype == np.float32


def test_image_and_its_metadata(undersampled):
    item = Reconstructd("raw", "tv", {"max_iter": 3}, maps="walsh")(load(undersampled))
    image = item["raw"]
    scan = read_scan(undersampled)
    expected = reconstruct_scan(scan, ReconstructionPlan("tv", {"max_iter": 3}, maps="walsh"))
    assert image.shape == (1, 32, 32, 3)
    assert image.dtype == torch.float32
    assert np.array_equal(image.numpy()[0].transpose(2, 1, 0), expected.array)
    assert torch.equal(image.affine, torch.tensor(expected.geometry.affine))
    history = json.loads(image.meta["reconstruction"])
    assert history["method"] == "tv"
    assert history["residual"] == pytest.approx(expected.provenance["residual"])
    assert history["input"] == {"file": undersampled.name, "format": "fastmri", "slices": [0, 3, 1]}
    assert image.meta["filename_or_obj"] == str(undersampled)
    assert image.meta["spatial_shape"].tolist() == [32, 32, 3]
    assert "sampling_mask" not in image.meta


@pytest.mark.parametrize("slices", [range(1), range(2, 3), range(0, 3, 2)])
def test_some_slices(undersampled, slices):
    part = load(undersampled, slices=slices)["raw"]
    image = Reconstruct("tv", {"max_iter": 3})(part)
    expected = reconstruct_scan(read_scan(undersampled), ReconstructionPlan("tv", {"max_iter": 3}, slices=slices))
    assert image.shape == (1, 32, 32, len(slices))
    assert np.array_equal(image.numpy()[0].transpose(2, 1, 0), expected.array)
    assert np.array_equal(image.affine.numpy(), expected.geometry.affine)


def test_single_slice_is_saved_with_its_axes(undersampled, tmp_path):
    """MONAI 1.6.1 fails on (1, X, Y, 1) unless the end dimensions stay."""
    item = Reconstructd("raw", "rss")(load(undersampled, slices=range(1, 2)))
    save = SaveImaged("raw", output_dir=tmp_path, squeeze_end_dims=False, separate_folder=False, print_log=False)
    save(item)
    saved = nibabel.load(tmp_path / f"{undersampled.stem}_trans.nii.gz")
    assert np.array_equal(np.asarray(saved.dataobj).squeeze(), item["raw"].numpy().squeeze())
    assert np.array_equal(saved.affine, item["raw"].affine.numpy())


def test_empty_slice_stays_black(undersampled, caplog):
    with h5py.File(undersampled, "a") as file:
        file["kspace"][0] = 0
    image = Reconstruct("rss")(load(undersampled)["raw"])
    assert not image[..., 0].any()
    assert image[..., 1].any()
    assert "slices 0 hold no data" in caplog.text
    with h5py.File(undersampled, "a") as file:
        file["kspace"][...] = 0
    with pytest.raises(NumericalError, match="zero everywhere"):
        load(undersampled)


def test_random_state_and_gradients_are_left_alone(undersampled):
    kspace = load(undersampled)["raw"]
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 (the global state is the point)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = Reconstruct("l1-wavelet", {"max_iter": 3})(kspace.requires_grad_())
    second = Reconstruct("l1-wavelet", {"max_iter": 3})(kspace)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_plain_tensor_is_kspace_of_unknown_geometry(undersampled):
    kspace = load(undersampled)["raw"].as_tensor()
    image = Reconstruct("rss")(kspace)
    assert image.shape == (1, 48, 64, 3)
    assert image.affine.diagonal().tolist() == [-1, -1, 1, 1]
    assert image.meta["oriented"] is False


def test_given_operator_is_used():
    operator = Inpainting(torch.ones(1, 1, 8, 9))
    image = torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0))
    data = {"m": operator(image[None]).movedim(0, 1), "m_operator": operator}
    result = Reconstructd("m", "adjoint")(data)
    assert result["m"].shape == (1, 9, 8, 1)
    assert torch.equal(result["m"][0, :, :, 0].T.as_tensor(), image[0])
    with pytest.raises(UsageError, match=r"expected \(1, slices, 8, 9\)"):
        Reconstruct("adjoint")(torch.ones(1, 8, 9), operator)
    with pytest.raises(OperatorError, match="dtype=None"):
        Reconstruct("adjoint")(torch.ones(1, 1, 8, 9, dtype=torch.complex64), operator)


def test_pending_operations_are_refused(undersampled):
    raw = load(undersampled)["raw"]
    pending = Flipd("raw", spatial_axis=0, lazy=True)({"raw": raw})
    with pytest.raises(UsageError, match="1 lazy operations are pending"):
        Reconstructd("raw")(pending)
    item = Reconstructd("raw", "rss")(load(undersampled))
    lazy = Flipd("raw", spatial_axis=0, lazy=True)(item)["raw"]
    assert apply_pending(lazy)[0].shape == (1, 32, 32, 3)


def test_reconstruction_is_not_invertible(undersampled):
    """What came before it cannot be undone; a transform after it can."""
    chain = Compose([Reconstructd("raw", "rss"), Flipd("raw", spatial_axis=0)])
    item = chain(load(undersampled))
    assert [entry["class"] for entry in item["raw"].applied_operations] == ["Flip"]
    plain = Reconstructd("raw", "rss")(load(undersampled))["raw"]
    back = Compose([Flipd("raw", spatial_axis=0)])
    flipped = back({"raw": plain})
    undone = Invertd("raw", transform=back, orig_keys="raw", nearest_interp=False)(flipped)["raw"]
    assert torch.equal(undone.as_tensor(), plain.as_tensor())
    assert torch.equal(undone.affine, plain.affine)


def test_in_a_pipeline_and_in_other_processes(undersampled):
    chain = Compose(
        [
            LoadImaged(keys="raw", reader=KSpaceReader(), dtype=np.complex64),
            Reconstructd("raw", "rss"),
            Lambdad("raw", lambda image: image * 2),
        ]
    )
    image = chain({"raw": undersampled})["raw"]
    transform = pickle.loads(pickle.dumps(Reconstructd("raw", "rss")))
    again = transform(load(undersampled))["raw"]
    assert torch.equal(image.as_tensor(), 2 * again.as_tensor())
    assert image.meta["modality"] == "MR"


def test_missing_keys(undersampled):
    assert Reconstructd("raw", allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError):
        Reconstructd("raw")({"other": 1})


def test_options_are_checked_before_any_data():
    with pytest.raises(UsageError, match="no method is called"):
        Reconstruct("tvv")
    with pytest.raises(UsageError, match="has no parameter"):
        Reconstructd("raw", "tv", {"iterations": 3})
    with pytest.raises(UsageError, match="maps must be one of"):
        Reconstruct(maps="sense")


def test_mask_that_does_not_fit(fastmri_file):
    raw = load(fastmri_file("test"))["raw"]
    cropped = raw[..., 4:-4]
    with pytest.raises(UsageError, match="sampling mask"):
        Reconstruct("rss")(cropped)


def test_trained_model_of_the_package(undersampled, monkeypatch, tmp_path):
    """By itself within its scope, and by name; also where an operator comes with the item."""
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", tmp_path)
    torch.manual_seed(0)
    build_model("idm", image_channels=2, preset="tiny", parameters={"steps": 1}).save(tmp_path / "mri", half=True)
    (tmp_path / "mri" / "scope.json").write_text('{"modality": "mri", "acceleration": [1.2, 4]}')
    for options in ({}, {"checkpoint": "mri"}, {"method": "idm"}):
        history = json.loads(Reconstructd("raw", **options)(load(undersampled))["raw"].meta["reconstruction"])
        assert history["method"] == "idm"
        assert history["parameters"]["checkpoint"] == "mri"
    operator = CartesianMRI(torch.arange(20) % 2 == 0, image_shape=(24, 20))
    kspace = operator(torch.rand(1, 1, 24, 20).to(torch.complex64)).movedim(0, 1)
    history = json.loads(Reconstruct()(kspace, operator).meta["reconstruction"])
    assert history["method_reason"] == "R = 2.00, 1 coil: within the scope of the trained model 'mri'"
