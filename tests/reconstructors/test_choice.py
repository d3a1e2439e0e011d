"""The method that "auto" takes: the trained model within its scope, a classical one outside, and why."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.io import Geometry, Scan, SliceStack
from medrecon.io.scan import CartesianAcquisition
from medrecon.models import build_model
from medrecon.models.files import DETAILS
from medrecon.operators import BlockCompressedSensing, Inpainting, ParallelBeam2D
from medrecon.operators.fourier import centred_fft
from medrecon.reconstructors.choice import choose_method, shipped_choice
from medrecon.reconstructors.plan import ReconstructionPlan, prepare_method, settled
from medrecon.reconstructors.volume import reconstruct_scan
from medrecon.simulation import brain_phantom

SCOPES = {
    "mri": {"modality": "mri", "acceleration": [1.5, 5], "coils": [1, 4], "matrix": [24, 64], "noise": 0.1},
    "ct": {"modality": "ct", "geometry": ["ct-parallel"], "views": [10, 30]},
    "cs": {"modality": "cs", "ratio": [0.2, 0.5]},
}


def random_model(folder, channels=2, details=None, method="idm"):
    torch.manual_seed(0)
    parameters = {"steps": 1} if method == "idm" else {}
    build_model(method, image_channels=channels, preset="tiny", parameters=parameters).save(folder, half=True)
    if details is not None:
        (folder / DETAILS).write_text(json.dumps({"recipe": {}, "reconstruction": details}))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, content in SCOPES.items():
        random_model(folder / name, 2 if name == "mri" else 1)
        (folder / name / "scope.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def ours(models, monkeypatch):
    """Make the three models those of the package."""
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", models)
    return models


def scan_of(measurements, acquisition, shape):
    geometry = Geometry.from_spacing((1.0, 2.0, 3.0), (len(measurements), *shape))
    return Scan(Path("scan.h5"), "test", SliceStack.from_tensor(measurements), acquisition, geometry)


def mri_scan(rate=2, *, slices=2, coils=3, rows=48, matrix=None, noise=0.0):
    """Coils that are smooth windows on a phantom, every ``rate``-th column and the central twelve."""
    generator = torch.Generator().manual_seed(0)
    images = brain_phantom(slices, (rows, 40), generator)[:, None].to(torch.complex64)
    if noise == float("inf"):
        images, noise = 0 * images, 1.0
    across = torch.linspace(-1, 1, 40)
    windows = torch.stack([torch.exp(-((across - centre) ** 2)) for centre in torch.linspace(-1, 1, coils)])
    kspace = centred_fft(images * windows[:, None])
    kspace = kspace + noise * torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    mask = torch.arange(40) % rate == 0
    mask[14:26] = True
    return scan_of(kspace * mask, CartesianAcquisition(mask=mask, matrix=matrix), (rows, 40))


def ct_scan(views):
    operator = ParallelBeam2D(
        (32, 32), torch.arange(views) * torch.pi / views, detector_count=49, pixel_size=1.0, detector_pitch=1.0
    )
    images = 0.02 * brain_phantom(2, (32, 32), torch.Generator().manual_seed(0))[:, None]
    return scan_of(operator(images), operator, (32, 32))


def cs_scan(ratio):
    operator = BlockCompressedSensing((32, 32), ratio, block_size=8)
    return scan_of(operator(brain_phantom(2, (32, 32), torch.Generator().manual_seed(0))[:, None]), operator, (32, 32))


@pytest.mark.parametrize(
    ("scan", "name", "reason"),
    [
        (mri_scan(), "mri", "R = 1.54, 3 coils"),
        (mri_scan(coils=1), "mri", "R = 1.54, 1 coil"),
        (ct_scan(20), "ct", "20 views of 49 bins"),
        (ct_scan(30), "ct", "30 views of 49 bins"),  # densely sampled, all the same
        (cs_scan(0.25), "cs", "0.25 measurements a pixel"),
    ],
)
def test_within(ours, scan, name, reason):
    choice = choose_method(scan)
    assert choice == ("idm", f"{reason}: within the scope of the trained model {name!r}", ours / name)
    assert choose_method(scan, trained=False).method in ("tv", "fbp")
    image = reconstruct_scan(scan, ReconstructionPlan())
    assert image.provenance["method"] == "idm"
    assert image.provenance["method_requested"] == "auto"
    assert image.provenance["method_reason"] == choice.reason
    assert image.provenance["parameters"]["checkpoint"] == name
    assert len(image.provenance["parameters"]["sha256"]) == 64
    assert str(ours) not in str(image.provenance)


@pytest.mark.parametrize(
    ("scan", "method", "reason"),
    [
        (mri_scan(1), "rss", "the k-space is fully sampled"),
        (mri_scan(coils=5), "tv", "undersampled, R = 1.54; not the trained model 'mri': 5 coils are beyond the 1 to 4"),
        (mri_scan(rows=80), "tv", "not the trained model 'mri': a matrix side of 80 is beyond the 24 to 64"),
        (mri_scan(noise=1.0), "tv", "not the trained model 'mri': noise of "),
        (mri_scan(noise=float("inf")), "tv", "not the trained model 'mri': noise of "),
        (ct_scan(8), "tv", "not the trained model 'ct': 8 views are beyond the 10 to 30"),
        (ct_scan(40), "fbp", "not the trained model 'ct': 40 views are beyond the 10 to 30"),
        (cs_scan(0.1), "tv", "not the trained model 'cs': a ratio of 0.1 is beyond the 0.2 to 0.5"),
        (cs_scan(1.0), "adjoint", "the operator is unitary"),
        (scan_of(torch.ones(1, 1, 8, 8), Inpainting(torch.eye(8)[None]), (8, 8)), "tv", "Inpainting loses information"),
    ],
)
def test_outside(ours, scan, method, reason):
    choice = choose_method(scan)
    assert choice.method == method
    assert reason in choice.reason
    assert choice.checkpoint is None


def test_parameters_ask_for_a_classical_method(ours):
    scan = mri_scan()
    image = reconstruct_scan(scan, ReconstructionPlan(parameters={"max_iter": 2}))
    assert image.provenance["method"] == "tv"
    assert image.provenance["method_reason"] == "the k-space is undersampled, R = 1.54"


def test_a_method_without_its_model(ours, models):
    plan = ReconstructionPlan("idm")
    assert prepare_method(plan) is None
    done, reason = settled(plan, ct_scan(20))
    assert done.parameters == {"checkpoint": str(models / "ct")}
    assert reason == "asked for, with the trained model 'ct'"
    with pytest.raises(UsageError, match=r"^unet: needs a trained model, .*\(cs, ct, mri\) is for scan.h5"):
        settled(ReconstructionPlan("unet"), mri_scan())
    with pytest.raises(UsageError, match=r"^idm: needs a trained model"):
        shipped_choice(scan_of(torch.ones(1, 1, 8, 8), Inpainting(torch.eye(8)[None]), (8, 8)), "idm")


def test_nothing_comes_with_the_package():
    assert choose_method(mri_scan()) == ("tv", "the k-space is undersampled, R = 1.54", None)
    with pytest.raises(UsageError, match=r"^idm: needs the folder of a trained model, give it with --checkpoint$"):
        prepare_method(ReconstructionPlan("idm"))


def test_a_warning_where_the_model_that_is_asked_for_does_not_suit(ours, caplog):
    logging.getLogger("medrecon").propagate = True
    for parameters in ({}, {"checkpoint": "mri"}):
        caplog.clear()
        settled(ReconstructionPlan("idm", parameters), mri_scan(coils=5))
        assert "the trained model may not suit scan.h5: 5 coils are beyond the 1 to 4" in caplog.text
    caplog.clear()
    settled(ReconstructionPlan("idm"), mri_scan())
    assert not caplog.text


def test_preparation_is_that_of_the_training(monkeypatch, tmp_path):
    """Maps by the method of the training, and no read-out oversampling, which also decides about the matrix."""
    random_model(tmp_path / "mri", details={"maps": "walsh", "remove_oversampling": True})
    (tmp_path / "mri" / "scope.json").write_text(json.dumps(SCOPES["mri"]))
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", tmp_path)
    scan = mri_scan(rows=80, matrix=(40, 40))
    done, reason = settled(ReconstructionPlan(), scan)
    assert "within the scope" in reason
    assert (done.method, done.maps, done.crop_readout) == ("idm", "walsh", True)
    assert settled(ReconstructionPlan(maps="espirit", crop_readout=False), scan)[0] == replace(
        done, maps="espirit", crop_readout=False
    )
    image = reconstruct_scan(scan, ReconstructionPlan())
    assert image.array.shape == (2, 40, 40)
    assert image.provenance["slices"][0]["maps"].startswith("walsh")


def test_other_models_of_ours(monkeypatch, tmp_path):
    """The method is that of the model, and one without a scope waits until it is asked for."""
    monkeypatch.setattr("medrecon.models.shipped.FOLDER", tmp_path)
    random_model(tmp_path / "mri", method="varnet")
    assert choose_method(mri_scan()).method == "tv"
    (tmp_path / "mri" / "scope.json").write_text(json.dumps(SCOPES["mri"]))
    assert choose_method(mri_scan()).method == "varnet"
    assert settled(ReconstructionPlan(parameters={"checkpoint": "mri"}), mri_scan())[0].method == "varnet"
