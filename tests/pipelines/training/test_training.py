"""Training runs: what they leave behind, that they repeat themselves, and that they can be interrupted anywhere."""

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from safetensors.torch import load_file

from medrecon.errors import InputError, MedreconError, NumericalError, UsageError
from medrecon.io import write_sinogram
from medrecon.models import load_trained
from medrecon.operators import ParallelBeam2D
from medrecon.pipelines.training import checkpoint, engine
from medrecon.pipelines.training.average import WeightAverage
from medrecon.pipelines.training.judge import judge, write_sheet
from medrecon.pipelines.training.run import train
from medrecon.pipelines.training.run_folder import RunFolder
from medrecon.simulation import random_ellipses

WEIGHTS = Path("model", "diffusion_pytorch_model.safetensors")


def lines(folder, event="train"):
    """The log, without times."""
    clock = ("time", "iterations_per_second", "waiting_for_data")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in clock} for row in rows if row["event"] == event]


def run(recipe, folder, **options):
    return train(recipe, folder, quiet=True, **options)


def stop_at(monkeypatch, iteration, number=signal.SIGTERM):
    """Send this process and its workers a signal when an iteration is logged, as a cluster does."""
    write = engine.Journal.write

    def watched(self, event, at, values):
        write(self, event, at, values)
        if (event, at) == ("train", iteration):
            for process in multiprocessing.active_children():
                os.kill(process.pid, number)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(engine.Journal, "write", watched)


class TestRun:
    def test_what_it_leaves_behind(self, recipe, tmp_path):
        card = recipe()
        outcome = run(card, tmp_path / "run")
        assert outcome.finished
        assert (outcome.epochs, outcome.iterations) == (2, 6)
        folder = tmp_path / "run"
        assert {path.name for path in folder.iterdir()} == {
            "recipe.yaml", "run.json", "log.jsonl", "tensorboard", "checkpoint.pt", "model",
        }  # fmt: skip
        assert RunFolder(folder).recipe([]) == card
        (start,) = json.loads((folder / "run.json").read_text())
        assert start["versions"]["torch"] == torch.__version__
        assert start["seed"] == 0
        assert len(start["fingerprint"]) == 64
        assert [row["iteration"] for row in lines(folder)] == list(range(1, 7))
        verdicts = lines(folder, "validation")
        assert [row["epoch"] for row in verdicts] == [1, 2]
        assert len(verdicts[0]["volumes"]) == 2
        details = json.loads((folder / "model" / "training.json").read_text())
        best = max(verdicts, key=lambda row: row["ssim"])
        assert details["epoch"] == best["epoch"] == outcome.best_epoch
        assert details["validation"]["ssim"] == best["ssim"] == outcome.best
        assert "Not for diagnostic use" in (folder / "model" / "README.md").read_text()
        assert load_trained(folder).settings.image_channels == 2

    def test_tensorboard_has_curves_and_pictures(self, recipe, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run(recipe(), tmp_path / "run")
        found = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
        found.Reload()
        tags = found.Tags()
        assert {"train/loss", "train/learning_rate", "validation/ssim"} <= set(tags["scalars"])
        assert len(tags["images"]) == 1
        picture = found.Images(tags["images"][0])[0]
        assert (picture.width, picture.height) == (4 * 20, 24)

    def test_loss_falls(self, recipe, tmp_path):
        changes = {"data.operator": "inpainting-50", "training.epochs": 20, "training.learning_rate": 1e-2}
        run(recipe({**changes, "training.batch_size": 3, "validation.every": 20}), tmp_path / "run")
        losses = [row["loss"] for row in lines(tmp_path / "run")]
        assert np.mean(losses[-6:]) < 0.5 * np.mean(losses[:4])

    @pytest.mark.parametrize("method", ["unet", "varnet"])
    def test_one_key_changes_the_method(self, recipe, tmp_path, method):
        changes = {"model": {"method": method, "preset": "tiny"}, "training.epochs": 1, "training.loss": "l1+ssim"}
        assert run(recipe(changes), tmp_path / "run").finished
        assert load_trained(tmp_path / "run").registered_name == method

    def test_bfloat16_and_accumulation(self, recipe, tmp_path):
        changes = {"training.precision": "bfloat16", "training.accumulate": 2, "training.epochs": 1}
        run(recipe(changes), tmp_path / "run")
        rows = lines(tmp_path / "run")
        assert [row["gradient_norm"] is None for row in rows] == [True, False, False]  # the last batch steps by itself

    def test_accumulation_equals_a_larger_batch(self, recipe, tmp_path):
        """Samples of equal size: the mean over two batches of one is that over a batch of two."""
        one = {"training.batch_size": 1, "training.accumulate": 6, "training.epochs": 1}
        six = {"training.batch_size": 6, "training.epochs": 1}
        for name, changes in (("one", one), ("six", six)):
            run(recipe({**changes, "training.optimizer": "adam", "training.weight_decay": 0.0}), tmp_path / name)
        norms = [lines(tmp_path / name)[-1]["gradient_norm"] for name in ("one", "six")]
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)

    @pytest.mark.parametrize(("metric", "pick"), [("nmse", min), ("psnr", max)])
    def test_best_by_a_metric_whose_direction_is_known(self, recipe, tmp_path, metric, pick):
        outcome = run(recipe({"validation.metric": metric, "training.epochs": 3}), tmp_path / "run")
        values = [row[metric] for row in lines(tmp_path / "run", "validation")]
        assert outcome.best == pick(values)

    def test_early_stop(self, recipe, tmp_path):
        """A learning rate of nothing: the first validation stays the best."""
        changes = {"training.learning_rate": 1e-12, "training.epochs": 9, "validation.patience": 2}
        outcome = run(recipe({**changes, "training.ema": None}), tmp_path / "run")
        assert outcome.finished
        assert outcome.epochs <= outcome.best_epoch + 2 < 9
        again = run(RunFolder(tmp_path / "run").recipe([]), tmp_path / "run", resume=True)
        assert again.iterations == outcome.iterations

    def test_fastmri(self, fastmri_recipe, tmp_path):
        outcome = run(fastmri_recipe({"training.epochs": 1}), tmp_path / "run")
        assert outcome.finished
        (verdict,) = lines(tmp_path / "run", "validation")
        assert len(verdict["volumes"]) == 1
        details = json.loads((tmp_path / "run" / "model" / "training.json").read_text())
        assert details["reconstruction"] == {"maps": "low-resolution", "remove_oversampling": True}

    def test_sinograms(self, recipe, tmp_path):
        """Measured files with references."""
        (tmp_path / "scans").mkdir()
        operator = ParallelBeam2D((24, 24), torch.arange(12) * torch.pi / 12, detector_count=35)
        images = 0.02 * random_ellipses(3, (24, 24), torch.Generator().manual_seed(0))
        for index, image in enumerate(images):
            path = tmp_path / "scans" / f"{index}.h5"
            write_sinogram(path, operator(image[None, None]), operator, mu_water=0.02, reference=image[None])
        data = {"kind": "scans", "train": str(tmp_path / "scans"), "validation": 0.3}
        assert run(recipe({"data": data, "training.epochs": 1}), tmp_path / "run").finished
        assert load_trained(tmp_path / "run").settings.image_channels == 1

    def test_in_a_monai_pipeline(self, fastmri_recipe, fastmri_folder, tmp_path):
        """The transform prepares data as the command line does: maps and read-out as in training."""
        from medrecon.cli import main
        from medrecon.pipelines import KSpaceReader, Reconstruct

        folder = fastmri_folder("multi", 4, 2)
        run(fastmri_recipe({"training.epochs": 1}, folder), tmp_path / "run")
        file = folder / "file000.h5"
        command = ["reconstruct", file, "-o", tmp_path / "image.npz", "--checkpoint", tmp_path / "run", "-q"]
        assert main([str(word) for word in command]) == 0
        expected = np.load(tmp_path / "image.npz")["array"]
        array, meta = KSpaceReader().get_data([file])
        image = Reconstruct(checkpoint=tmp_path / "run")(MetaTensor(torch.from_numpy(array), meta=meta))
        assert np.allclose(image[0].numpy().transpose(2, 1, 0), expected, rtol=1e-5, atol=1e-9)

    def test_one_network_for_several_operators(self, recipe, tmp_path):
        """Two subjects in two files each, all of one subject held out; coils and lines drawn for every slice."""
        rng = np.random.default_rng(0)
        (tmp_path / "images").mkdir()
        for name in ("axial", "coronal"):
            arrays = {"images": rng.random((4, 24, 20), dtype=np.float32), "who": np.array([1, 1, 2, 2])}
            np.savez(tmp_path / "images" / f"{name}.npz", **arrays)
        coils = {"name": "coils", "description": "3 coils", "operator": "cartesian-mri", "coils": {"count": 3}}
        coils["mask"] = {"sampler": "random", "acceleration": 2, "center_fraction": 0.2}
        data = {"kind": "images", "train": str(tmp_path / "images"), "subjects": "who", "contrast": 0.3}
        changes = {"data": {**data, "operator": ["mri-singlecoil-4x", coils]}, "training.batch_size": 1}
        run(recipe({**changes, "training.epochs": 1}), tmp_path / "run")
        (verdict,) = lines(tmp_path / "run", "validation")
        (number,) = {volume.rpartition(" ")[2] for volume in verdict["volumes"]}
        assert set(verdict["volumes"]) == {f"axial.npz, subject {number}", f"coronal.npz, subject {number}"}
        groups = {score.acquisition for score in judge(tmp_path / "run").verdict.scores}
        assert groups <= {"coils", "mri-singlecoil-4x"}

    def test_a_folder_named_twice_is_judged_once(self, recipe, tmp_path):
        (tmp_path / "images").mkdir()
        for name in ("a", "b"):
            np.savez(tmp_path / "images" / f"{name}.npz", images=np.random.default_rng(0).random((2, 24, 20)))
        data = {"kind": "images", "train": [str(tmp_path / "images")] * 2, "operator": "mri-singlecoil-4x"}
        run(recipe({"data": {**data, "validation": 0.5}, "training.epochs": 1}), tmp_path / "run")
        assert lines(tmp_path / "run")[-1]["iteration"] == 2  # four slices, two at a time
        (verdict,) = lines(tmp_path / "run", "validation")
        assert len(verdict["volumes"]) == 1

    def test_volumes_named_twice_are_judged_once(self, fastmri_recipe, fastmri_folder, tmp_path):
        """Also those of fastMRI."""
        folder = fastmri_folder("multi", 4, 2)
        run(fastmri_recipe({"training.epochs": 1, "data.train": [str(folder)] * 2}, folder), tmp_path / "run")
        assert lines(tmp_path / "run")[-1]["iteration"] == 6  # three volumes of two slices, twice, two at a time
        (verdict,) = lines(tmp_path / "run", "validation")
        assert len(verdict["volumes"]) == 1

    def test_mixed_sizes_in_one_folder(self, fastmri_recipe, fastmri_folder, tmp_path):
        folder = fastmri_folder("multi", 3, 2)
        other = fastmri_folder("brain", 3, 2, name="other")
        for path in other.iterdir():
            path.rename(folder / f"brain_{path.name}")
        assert run(fastmri_recipe({"training.epochs": 1}, folder), tmp_path / "run").finished

    def test_go_on_from_a_model(self, recipe, tmp_path):
        run(recipe(), tmp_path / "first")
        changes = {"model.start": str(tmp_path / "first"), "training.learning_rate": 1e-12, "training.epochs": 1}
        run(recipe({**changes, "training.ema": None}), tmp_path / "second")
        before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("first", "second"))
        assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
        run(recipe({**changes, "model.unshare": True}), tmp_path / "third")
        third = load_file(tmp_path / "third" / WEIGHTS)
        assert torch.allclose(third["unet.0.conv_in.weight"], before["unet.conv_in.weight"], atol=1e-6)

    def test_only_the_idm_can_be_unshared(self, recipe, tmp_path):
        run(
            recipe({"model.method": "unet", "model.parameters": {}, "model.memory": None, "training.epochs": 1}),
            tmp_path / "first",
        )
        with pytest.raises(UsageError, match=r"model\.unshare: is for idm.*UNetBaseline"):
            run(recipe({"model.start": str(tmp_path / "first"), "model.unshare": True}), tmp_path / "second")


LONG = {"training.epochs": 3, "training.workers": 1, "training.accumulate": 2, "training.batch_size": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_recipe):
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(make_recipe(LONG), folder)


class TestResume:
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    @pytest.mark.parametrize("iteration", [3, 6, 11])
    def test_bit_equal_to_an_uninterrupted_run(self, recipe, whole, tmp_path, monkeypatch, iteration):
        """Epochs of six iterations: in the middle of one (and of an accumulation), at its end, once more."""
        folder, outcome = whole
        with monkeypatch.context() as patch:
            stop_at(patch, iteration)
            cut = run(recipe(LONG), tmp_path / "cut")
        assert not cut.finished
        assert iteration <= cut.iterations <= iteration + 2
        torch.rand(7)  # the global generator is elsewhere now
        done = run(RunFolder(tmp_path / "cut").recipe([]), tmp_path / "cut", resume=True)
        assert done == outcome
        for event in ("train", "validation"):
            assert lines(tmp_path / "cut", event) == lines(folder, event)
        first, second = (load_file(path / WEIGHTS) for path in (folder, tmp_path / "cut"))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert len(json.loads((tmp_path / "cut" / "run.json").read_text())) == 2

    def test_killed_while_validating(self, recipe, tmp_path, monkeypatch):
        """The epoch is not lost: the validation is made up for when the run is taken up."""
        run(recipe(), tmp_path / "whole")

        def killed(self, epoch):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(engine.Training, "_validate", killed)
            with pytest.raises(KeyboardInterrupt):
                run(recipe(), tmp_path / "cut")
        assert lines(tmp_path / "cut", "validation") == []
        assert run(recipe(), tmp_path / "cut", resume=True).finished
        for event in ("train", "validation"):
            assert lines(tmp_path / "cut", event) == lines(tmp_path / "whole", event)

    def test_after_being_killed(self, recipe, tmp_path):
        """Lines that an interrupted run logged beyond its checkpoint are forgotten."""
        changes = {"training.epochs": 1}
        run(recipe(changes), tmp_path / "run")
        with (tmp_path / "run" / "log.jsonl").open("a") as log:
            log.write('{"event": "train", "iteration": 4, "loss": 7}\n{"event": "tra')
        run(RunFolder(tmp_path / "run").recipe([("training.epochs", 2)]), tmp_path / "run", resume=True)
        assert [row["iteration"] for row in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
        assert all(row["loss"] < 7 for row in lines(tmp_path / "run"))

    def test_a_finished_run_stays_as_it_is(self, recipe, tmp_path):
        run(recipe(), tmp_path / "run")
        log = (tmp_path / "run" / "log.jsonl").read_text()
        assert run(recipe(), tmp_path / "run", resume=True).finished
        assert (tmp_path / "run" / "log.jsonl").read_text() == log

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"training.learning_rate": 0.1},
                r"cannot go on with another recipe \(training.learning_rate: 0.002 -> 0.1",
            ),
            ({"model.preset": "small"}, r"model.preset: 'tiny' -> 'small'"),
            ({"data.count": 9}, r"data.count: 8 -> 9"),
            ({"data.validation": 0.5}, r"data.validation: 0.25 -> 0.5"),
            ({"seed": 3}, r"seed: 0 -> 3.*--model.start"),
        ],
    )
    def test_another_recipe(self, recipe, tmp_path, change, message):
        run(recipe({"training.epochs": 1}), tmp_path / "run")
        before = (tmp_path / "run" / "recipe.yaml").read_text()
        with pytest.raises(UsageError, match=message):
            run(recipe({"training.epochs": 1, **change}), tmp_path / "run", resume=True)
        assert (tmp_path / "run" / "recipe.yaml").read_text() == before

    def test_other_data(self, fastmri_recipe, fastmri_folder, tmp_path):
        folder = fastmri_folder("multi", 4, 2)
        card = fastmri_recipe({"training.epochs": 1}, folder)
        run(card, tmp_path / "run")
        (folder / "file000.h5").unlink()
        with pytest.raises(UsageError, match=r"the data are not those that the run began with"):
            run(card, tmp_path / "run", resume=True)

    def test_another_architecture_or_number_of_processes(self, recipe, tmp_path):
        card = recipe({"training.epochs": 1})
        run(card, tmp_path / "run")
        path = tmp_path / "run" / "checkpoint.pt"
        content = torch.load(path, weights_only=True)
        content.pop("medrecon")
        checkpoint.save_checkpoint(path, {**content, "world": 4})
        with pytest.raises(UsageError, match=r"was trained by 4 processes with 3 iterations an epoch, now there are 1"):
            run(card, tmp_path / "run", resume=True)
        weights = {key: value for key, value in content["model"].items() if "merge" not in key}
        checkpoint.save_checkpoint(path, {**content, "model": weights})
        with pytest.raises(InputError, match=r"the checkpoint is of another model"):
            run(card, tmp_path / "run", resume=True)


class TestTrouble:
    def test_a_folder_that_is_taken(self, recipe, tmp_path):
        run(recipe({"training.epochs": 1}), tmp_path / "run")
        with pytest.raises(UsageError, match=r"is there already and not empty; go on with --resume .*run"):
            run(recipe(), tmp_path / "run")
        (tmp_path / "file").write_text("x")
        with pytest.raises(UsageError, match=r"is a file; choose another --output"):
            run(recipe(), tmp_path / "file")

    def test_nan_names_the_file_and_keeps_the_checkpoint(self, recipe, tmp_path, monkeypatch):
        from medrecon.models import InvertibleDiffusionModel

        loss = InvertibleDiffusionModel.training_loss

        def poisoned(self, batch, kind="l1"):
            value = loss(self, batch, kind)
            bad = any(source.volume == "brain phantom 1" for source in batch.sources)
            return value * (float("nan") if bad and self.epoch_two else 1)

        monkeypatch.setattr(InvertibleDiffusionModel, "training_loss", poisoned)
        monkeypatch.setattr(InvertibleDiffusionModel, "epoch_two", False, raising=False)
        run(recipe({"training.epochs": 1}), tmp_path / "run")
        before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
        monkeypatch.setattr(InvertibleDiffusionModel, "epoch_two", True)
        with pytest.raises(
            NumericalError, match=r"iteration \d: loss nan.*brain phantom 1.*last checkpoint is as it was"
        ):
            run(recipe({"training.epochs": 2}), tmp_path / "run", resume=True)
        assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("basic_ios::clear: iostream error")]
    )
    def test_full_disk(self, recipe, tmp_path, monkeypatch, error):
        """The write fails half-way: the checkpoint of the first epoch survives, and nothing half is left."""
        run(recipe({"training.epochs": 1}), tmp_path / "run")
        before = (tmp_path / "run" / "checkpoint.pt").read_bytes()

        def full(content, path):
            Path(path).write_bytes(b"half")
            raise error

        monkeypatch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(MedreconError, match=r"checkpoint.pt: could not be written \(.*are free on this disk"):
            run(recipe({"training.epochs": 2}), tmp_path / "run", resume=True)
        assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
        assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("policy", ["stop", "skip"])
    def test_a_volume_that_is_cut_in_the_middle_of_training(
        self, fastmri_recipe, fastmri_folder, tmp_path, monkeypatch, policy
    ):
        folder = fastmri_folder("multi", 4, 2)
        card = fastmri_recipe({"data.on_damage": policy, "data.augment": False, "training.epochs": 3}, folder)
        (held,) = judged_volumes(card)
        victim = next(path for path in sorted(folder.iterdir()) if path.name != held)
        write = engine.Journal.write

        def cutting(self, event, at, values):
            write(self, event, at, values)
            if at == 1:
                victim.write_bytes(victim.read_bytes()[:5000])

        monkeypatch.setattr(engine.Journal, "write", cutting)
        if policy == "stop":
            with pytest.raises(InputError, match=rf"{victim.name}.*has changed since training began"):
                run(card, tmp_path / "run")
            return
        assert run(card, tmp_path / "run").finished
        assert lines(tmp_path / "run", "validation")[-1]["unreadable"] > 0

    def test_no_data(self, recipe, fastmri_recipe, fastmri_folder, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"no \*.h5 files in this folder"):
            run(fastmri_recipe({}, tmp_path / "empty"), tmp_path / "run")
        with pytest.raises(InputError, match=r"none of 2 files is left to train on"):
            run(fastmri_recipe({}, fastmri_folder("test", 2, 1)), tmp_path / "run2")
        with pytest.raises(UsageError, match=r"names no data to train on; give a file or a folder with --data"):
            run(recipe({"data": {"kind": "images", "operator": "block-cs-10"}}), tmp_path / "run3")
        with pytest.raises(InputError, match=r"only volume is file000.h5: nothing could be held out"):
            run(fastmri_recipe({}, fastmri_folder("multi", 1, 1, name="one")), tmp_path / "run4")

    def test_checkpoints_that_are_none(self, tmp_path):
        with pytest.raises(InputError, match=r"holds no checkpoint.pt"):
            checkpoint.load_checkpoint(tmp_path / "checkpoint.pt")
        (tmp_path / "checkpoint.pt").write_bytes(b"PK" + bytes(50))
        with pytest.raises(InputError, match=r"cannot be read as a checkpoint"):
            checkpoint.load_checkpoint(tmp_path / "checkpoint.pt")
        torch.save([1, 2], tmp_path / "checkpoint.pt")
        with pytest.raises(InputError, match=r"is a checkpoint of format list, expected 1"):
            checkpoint.load_checkpoint(tmp_path / "checkpoint.pt")


def judged_volumes(card):
    from medrecon.pipelines.training.data import load_data

    data = load_data(card).validation
    return sorted({data.volume_of(index) for index in range(len(data))})


class TestJudge:
    def test_equals_the_validation_of_the_run(self, fastmri_recipe, tmp_path):
        run(fastmri_recipe({"training.epochs": 1}), tmp_path / "run")
        (logged,) = lines(tmp_path / "run", "validation")
        found = judge(tmp_path / "run")
        scores = {score.volume: dict(score.scores) for score in found.verdict.scores}
        assert scores.keys() == logged["volumes"].keys()
        for volume, values in scores.items():
            assert values == pytest.approx(logged["volumes"][volume], rel=1e-5)
        write_sheet(found.verdict.pictures, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").stat().st_size > 1000

    def test_other_data_and_another_acceleration(self, fastmri_recipe, fastmri_folder, tmp_path):
        run(fastmri_recipe({"training.epochs": 1}), tmp_path / "run")
        other = fastmri_folder("multi", 2, 2, name="val")
        changes = [("data.mask.acceleration", [2]), ("data.mask.center_fraction", [0.3])]
        easy, hard = (judge(tmp_path / "run", [other], change).verdict.scores for change in (changes, ()))
        assert [score.acceleration for score in easy] == [2, 2]
        assert all(a.scores["ssim"] > b.scores["ssim"] for a, b in zip(easy, hard, strict=True))

    def test_data_that_have_changed(self, fastmri_recipe, fastmri_folder, tmp_path):
        folder = fastmri_folder("multi", 4, 2)
        run(fastmri_recipe({"training.epochs": 1}, folder), tmp_path / "run")
        (folder / "file000.h5").unlink()
        with pytest.raises(UsageError, match=r"what it held out is unknown; name other data with --data"):
            judge(tmp_path / "run")

    def test_a_folder_that_does_not_say_how_it_was_trained(self, recipe, tmp_path):
        run(recipe({"training.epochs": 1}), tmp_path / "run")
        (tmp_path / "run" / "model" / "training.json").unlink()
        with pytest.raises(InputError, match=r"holds no training.json"):
            judge(tmp_path / "run")


class TestWeightAverage:
    def test_closed_form(self, recipe):
        from medrecon.models import build_model

        model = build_model("idm", image_channels=2, preset="tiny", parameters={"steps": 1})
        average = WeightAverage(model, 0.5)
        start = model.merge.detach().clone()
        with torch.no_grad():
            for value in (1.0, 2.0, 3.0):
                model.merge.fill_(value)
                average.update(model)
        # decays (1 + n) / (10 + n): 0.1, 2/11, 3/12
        expected = float(start)
        for decay, value in ((0.1, 1.0), (2 / 11, 2.0), (0.25, 3.0)):
            expected = decay * expected + (1 - decay) * value
        assert float(average.model.merge) == pytest.approx(expected, rel=1e-6)
        assert not any(parameter.requires_grad for parameter in average.model.parameters())
