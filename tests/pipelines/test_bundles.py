"""The bundles of pipelines/: from small data to a trained model, to scores and to images, through monai.bundle."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from monai.bundle.properties import InferProperties, TrainProperties
from PIL import Image

from medrecon.errors import InputError
from medrecon.io import write_native
from medrecon.metrics import evaluate_volume
from medrecon.models import load_trained
from medrecon.operators.recipes import load_recipe
from medrecon.pipelines.bundle import ModelSaver, measured_files
from medrecon.pipelines.training.cards import bundles
from medrecon.pipelines.training.judge import judge
from medrecon.pipelines.training.recipe import load_training_recipe
from medrecon.reconstructors.learned import preparation

NAMES = ("mri-idm", "ct-idm", "cs-idm")
TINY = {
    "model.preset": "tiny",
    "model.parameters": {"steps": 1},
    "training.epochs": 2,
    "training.workers": 0,
    "training.warm_up": 2,
    "training.ema": 0.5,
}
SMALL = {
    "mri-idm": {"data.mask.acceleration": [4], "data.mask.center_fraction": [0.16]},
    "ct-idm": {"data.patch": 32},
    "cs-idm": {"data.patch": 32, "training.batch_size": 2},
}
pytestmark = [
    # MONAI says of every configuration that it runs code; ours is the one that is meant to run
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
]


@pytest.fixture(autouse=True)
def _on_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))  # a workflow adds its bundle
    monkeypatch.chdir(tmp_path)  # bundles run from anywhere


@pytest.fixture
def images(tmp_path):
    """Factory: a folder of images of that bundle."""

    def make(name: str) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        y, x = np.mgrid[-1:1:48j, -1:1:40j]
        for index in range(3):
            disc = (x - 0.1 * index) ** 2 + y**2 < 0.5
            if name == "ct-idm":
                hounsfield = np.where(disc, 40.0 + 20 * x, -1000.0).astype(np.float32)[..., None]
                nibabel.save(nibabel.Nifti1Image(hounsfield, np.eye(4)), folder / f"{index}.nii.gz")
            else:
                Image.fromarray((disc * (150 + 80 * y)).astype(np.uint8)).save(folder / f"{index}.png")
        return folder

    return make


@pytest.fixture
def raw(fastmri_folder, sinogram_file, tmp_path):
    """Factory: a measured file for inference of that bundle."""

    def make(name: str) -> Path:
        if name == "ct-idm":
            return sinogram_file
        if name == "cs-idm":
            operator = load_recipe("block-cs-10").draw((48, 40), torch.Generator().manual_seed(0))
            path = tmp_path / "measured.h5"
            write_native(path, operator(torch.rand(2, 1, 48, 40, generator=torch.Generator().manual_seed(1))), operator)
            return path
        folder = fastmri_folder("multi", 1, 1, name="raw")  # a single slice
        with h5py.File(folder / "file000.h5", "r+") as file:  # the layout of a test set
            lines = np.arange(48) % 4 == 0
            lines[20:28] = True
            file["mask"] = lines
            file["kspace"][...] *= lines
        return folder

    return make


def workflow(name, config, **changes):
    folder = bundles()[name]
    files = [str(folder / "configs" / f"{part}.yaml") for part in (config, *changes.pop("over", ()))]
    kind = "train" if config == "train" else "infer"
    return ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(folder), **changes)


def run(flow):
    flow.initialize()
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    return flow


def settings(name):
    return {f"settings::{key}": value for key, value in {**TINY, **SMALL[name]}.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_from_data_to_images(name, images, fastmri_folder, raw, tmp_path):
    data = fastmri_folder("multi", 3, 2) if name == "mri-idm" else images(name)
    output = tmp_path / "run"
    flow = workflow(name, "train", dataset_dir=str(data), output_dir=str(output), **settings(name))
    run(flow)
    trainer, evaluator = flow.trainer, flow.evaluator
    assert trainer.state.epoch == 2
    assert evaluator.state.metrics.keys() == {"ssim", "psnr", "nmse"}
    details = json.loads((output / "model" / "training.json").read_text())
    assert details["validation"]["ssim"] == evaluator.state.best_metric
    assert details["recipe"]["model"]["preset"] == "tiny"
    assert any((output / "tensorboard").iterdir())

    # the best weights, in both forms; the averaged ones, which are not those of the last step
    model = load_trained(output)
    weights = torch.load(output / "model.pt", weights_only=True)  # of one thing Ignite writes the bare state
    for key, value in model.state_dict().items():
        assert torch.equal(weights[key], value)
    trained = flow.network_def.state_dict()
    assert any(not torch.equal(trained[key], value) for key, value in model.state_dict().items())

    # evaluate.yaml says what medrecon evaluate says
    flow = workflow(
        name, "evaluate", checkpoint=str(output), dataset_dir=str(data), output_dir=str(tmp_path / "scores")
    )
    run(flow)
    scores = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert len(scores["volumes"]) == 3
    expected = {score.volume: score.scores for score in judge(output, [data]).verdict.scores}
    for line in scores["volumes"]:
        assert line["ssim"] == pytest.approx(expected[line["volume"]]["ssim"], abs=1e-6)

    # inference.yaml writes what Reconstruct makes of the file
    source = raw(name)
    for suffix in (".nii.gz", ".h5"):
        flow = workflow(
            name, "inference", checkpoint=str(output), dataset_dir=str(source), output_dir=str(tmp_path / "out"),
            output_ext=suffix,
        )  # fmt: skip
        run(flow)
    stem = "file000" if name == "mri-idm" else source.stem
    volume = nibabel.load(tmp_path / "out" / f"{stem}.nii.gz")
    with h5py.File(tmp_path / "out" / f"{stem}.h5") as file:
        reconstruction = file["reconstruction"][()]
    assert np.isfinite(reconstruction).all()
    assert reconstruction.std() > 0
    np.testing.assert_allclose(volume.get_fdata().T, reconstruction, rtol=1e-5, atol=1e-6 * reconstruction.max())
    if name == "mri-idm":
        assert volume.shape[::-1] == reconstruction.shape == (1, 32, 32)
        np.testing.assert_allclose(volume.header.get_zooms(), (4.375, 4.375, 3), rtol=1e-5)
        assert preparation(output).crop_readout
        with h5py.File(source / "file000.h5") as file:
            assert evaluate_volume(file["reconstruction_rss"][()], reconstruction)["nmse"] < 1

    with pytest.raises(RuntimeError, match="Failed to"):  # MONAI's wrapping of our InputError
        run(workflow(name, "train", dataset_dir=str(data), output_dir=str(output), **settings(name)))


@pytest.mark.slow
def test_several_processes_through_the_command(fastmri_folder, tmp_path):
    # one volume to validate on: the second process has none, and both must come to an end
    folder, configs = bundles()["mri-idm"], bundles()["mri-idm"] / "configs"
    data = fastmri_folder("multi", 3, 2)
    changes = [part for key, value in settings("mri-idm").items() for part in (f"--{key}", str(value))]
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            "-m", "monai.bundle", "run", "--config_file", str([f"{configs}/train.yaml", f"{configs}/ddp.yaml"]),
            "--bundle_root", str(folder), "--dataset_dir", str(data), "--output_dir", str(tmp_path / "run"), *changes,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (start,) = json.loads((tmp_path / "run" / "run.json").read_text())
    assert start["processes"] == 2
    assert "2 volumes to train on, 1 to validate on" in done.stderr
    details = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
    single = judge(tmp_path / "run")
    assert len(single.verdict.scores) == 1
    assert single.verdict.scores[0].scores["ssim"] == pytest.approx(details["validation"]["ssim"], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_all_properties_are_there(name):
    """Those that MONAI requires, and the optional ones by their ids."""
    for config, properties in (
        ("train", TrainProperties),
        ("evaluate", InferProperties),
        ("inference", InferProperties),
    ):
        flow = workflow(name, config)
        missing = [known["id"] for known in properties.values() if known["id"] not in flow.parser]
        assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_configurations(name):
    folder = bundles()[name]
    assert load_training_recipe(name).name == name
    for path in (folder / "configs").glob("*.yaml"):
        assert name in path.read_text()
        assert yaml.safe_load(path.read_text())
    flow = workflow(name, "train", over=("ddp",))
    assert flow.parser["network::_target_"] == "torch.nn.parallel.DistributedDataParallel"
    for path in ("docs/README.md", "LICENSE", "configs/logging.conf"):
        assert (folder / path).is_file()


@pytest.mark.parametrize("name", NAMES)
def test_metadata_name_the_versions_that_are_tested(name):
    card = json.loads((bundles()[name] / "configs" / "metadata.json").read_text())
    named = {
        "monai": card["monai_version"],
        "torch": card["pytorch_version"],
        "numpy": card["numpy_version"],
        **card["required_packages_version"],
    }
    assert named == {package: version(package).partition("+")[0] for package in named}
    assert card["version"] in card["changelog"]


def test_settings_that_are_wrong(fastmri_folder, tmp_path):
    data = fastmri_folder("multi", 2, 1)
    flow = workflow("mri-idm", "train", dataset_dir=str(data), **{"settings::training.epoch": 1})
    with pytest.raises(RuntimeError) as error:
        flow.initialize()
    causes = []
    cause = error.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert any("did you mean 'epochs'?" in text for text in causes)


def test_a_worse_model_does_not_replace_the_best(tmp_path):
    class State:
        epoch, best_metric_epoch = 2, 1

    class Engine:
        state = State()

    class Refusing:
        def save_model(self, *args):
            raise AssertionError

    ModelSaver(Refusing(), None, None)(Engine())


def test_no_files_to_reconstruct(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="no files that end in"):
        measured_files(tmp_path)
