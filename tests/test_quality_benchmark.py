"""The parts of benchmarks/quality.py: who was held back, intervals, lesions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medrecon.models import InvertibleDiffusionModel
from medrecon.models.files import DETAILS
from medrecon.pipelines.training.data import load_data
from medrecon.pipelines.training.recipe import TrainingRecipe

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from judging import ct, held_back, kspace, lesions, mri
from judging.case import centred, spread
from judging.methods import Method, Tuner
from judging.noise import correlation
from judging.score import mean

SUBJECTS = 10


@pytest.fixture
def trained(tmp_path):
    """A checkpoint that says that it was trained elsewhere, on data that now lie in ``here``."""
    folder = tmp_path / "here" / "brains"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).random((2 * SUBJECTS, 16, 16)).astype(np.float32)
    subjects = np.repeat(np.arange(SUBJECTS), 2)[:, None]
    np.savez(folder / "t1_axial.npz", images=images, subject_slice=subjects)
    card = {
        "seed": 3,
        "data": {
            "kind": "images",
            "train": [str(folder)],
            "validation": 0.3,
            "validation_slices": 2,
            "subjects": "subject_slice",
            "operator": "mri-singlecoil-4x",
        },
    }
    data = load_data(TrainingRecipe.from_dict(card, "card"))
    card["data"]["train"] = ["/elsewhere/data/brains"]
    checkpoint = tmp_path / "checkpoint"
    InvertibleDiffusionModel.from_preset("tiny", image_channels=2).save(checkpoint)
    (checkpoint / DETAILS).write_text(json.dumps({"recipe": card, "run": {"data": data.description}}))
    return checkpoint, folder, data


class TestHeldBack:
    def test_is_what_training_held_back(self, trained):
        checkpoint, folder, data = trained
        found = held_back.split([checkpoint], folder.parent)
        judged = {truth.subject for truth in found.held_back}
        assert {truth.subject for truth in data.validation.images} <= judged
        assert len(judged) == 3
        assert len(found.held_back) == 6
        assert {truth.subject for truth in found.training} == {truth.subject for truth in data.train.images}
        assert not judged & {truth.subject for truth in data.train.images}

    def test_other_data_are_refused(self, trained):
        checkpoint, folder, _ = trained
        np.savez(folder / "more.npz", images=np.random.default_rng(1).random((3, 16, 16)).astype(np.float32))
        with pytest.raises(SystemExit, match="who was held back is unknown"):
            held_back.split([checkpoint], folder.parent)

    def test_missing_data_are_named(self, trained, tmp_path):
        with pytest.raises(SystemExit, match="holds nothing like /elsewhere/data/brains"):
            held_back.split([trained[0]], tmp_path / "nowhere")

    def test_names_alone_are_searched_for(self, trained, tmp_path):
        """Models that come with the package keep no more."""
        checkpoint, folder, data = trained
        details = json.loads((checkpoint / DETAILS).read_text())
        details["recipe"]["data"]["train"] = ["brains"]
        (checkpoint / DETAILS).write_text(json.dumps(details))
        found = held_back.split([checkpoint], folder.parents[1])
        assert len(found.held_back) == 6
        assert {truth.subject for truth in data.validation.images} <= {truth.subject for truth in found.held_back}
        (tmp_path / "here" / "again" / "brains").mkdir(parents=True)
        with pytest.raises(SystemExit, match="holds nothing like brains"):
            held_back.split([checkpoint], folder.parents[1])

    def test_models_of_other_splits_are_refused(self, trained, tmp_path):
        checkpoint, folder, _ = trained
        details = json.loads((checkpoint / DETAILS).read_text())
        details["recipe"]["seed"] = 4
        other = tmp_path / "other"
        InvertibleDiffusionModel.from_preset("tiny", image_channels=2).save(other)
        (other / DETAILS).write_text(json.dumps(details))
        with pytest.raises(SystemExit, match="holds back other subjects"):
            held_back.split([checkpoint, other], folder.parent)

    def test_only_keeps_files_by_name(self, trained):
        checkpoint, folder, _ = trained
        found = held_back.split([checkpoint], folder.parent)
        assert held_back.only(found, "axial") == found
        assert held_back.only(found, "sagittal") == ([], [])


class TestMean:
    def test_of_three_subjects_is_over_subjects(self):
        found = mean([1.0, 3.0, 4.0, 6.0], ["a", "a", "b", "c"])
        assert found.value == pytest.approx(4.0)
        # Student's factor for two degrees of freedom is 4.3027
        assert found.half == pytest.approx(4.3027 * 2 / 3**0.5, rel=1e-4)
        assert found.over == "3 subjects"

    def test_of_one_subject_is_over_slices(self):
        found = mean([1.0, 3.0], ["a", "a"])
        assert found.value == 2
        assert found.half == pytest.approx(12.706, rel=1e-4)
        assert found.over == "2 slices"

    def test_of_one_slice_has_no_interval(self):
        assert mean([5.0], ["a"]) == (5.0, None, "one slice")


class TestSlices:
    def test_centred_crops_and_pads(self):
        image = torch.arange(12.0).reshape(2, 6)
        assert centred(image, 4).tolist() == [[0] * 4, [1, 2, 3, 4], [7, 8, 9, 10], [0] * 4]

    def test_spread_takes_both_ends(self):
        assert spread(range(10), 3) == [0, 4, 9]
        assert spread([1, 2], 5) == [1, 2]

    def test_case_measures_with_the_lines_of_its_setup(self):
        plane = torch.rand(96, 96, generator=torch.Generator().manual_seed(0))
        case = mri.measured_case(plane, mri.lines("random", 4, 4), 0, "slice", "subject")
        assert case.measurements.shape == (1, 4, 96, 96)
        assert case.truth == pytest.approx(plane.numpy(), abs=1e-6)
        sampled = (case.measurements != 0).any(1).any(1)
        assert 0.15 < float(sampled.float().mean()) < 0.35

    def test_ct_case_is_measured_in_photons(self):
        truth = held_back.GroundTruth(torch.full((32, 32), 0.02), pixel_size=1.0)
        case = ct.case(truth, views=12, counts=1e5, seed=0)
        clean = case.operator(torch.from_numpy(case.truth)[None, None])
        assert case.measurements.shape == clean.shape
        assert 0 < float((case.measurements - clean).abs().mean()) < 0.05


def test_tuner_chooses_once():
    plane = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    setup, tuner, method = mri.radial(30), Tuner(), Method("tv", {"max_iter": 3}, (0.001, 10.0))
    cases = [mri.measured_case(plane, setup, 0, "slice", "subject")]
    assert tuner.weight(setup.name, "tv", method, lambda: cases) == 0.001
    assert tuner.weight(setup.name, "tv", method, lambda: pytest.fail("tuned again")) == 0.001
    assert tuner.weight(setup.name, "adjoint", Method("adjoint"), lambda: cases) is None


class TestLesions:
    lesion = lesions.Lesion(30, 32, (5.0, 4.0), -1)

    def test_contrast_of_the_truth(self):
        plane = np.full((64, 64), 2.0)
        assert self.lesion.contrast(self.lesion.drawn_into(plane)) == pytest.approx(-0.6)
        assert self.lesion.contrast(plane) == 0

    def test_blur_loses_contrast(self):
        plane = self.lesion.drawn_into(np.full((64, 64), 2.0))
        assert -0.55 < self.lesion.contrast(gaussian_filter(plane, 3)) < -0.1

    def test_lie_apart_on_tissue(self):
        y, x = np.mgrid[-1:1:128j, -1:1:128j]
        disc = (x**2 + y**2 < 0.7) * (1 + 0.1 * x)
        found = lesions.place(disc, np.random.default_rng(0))
        assert len(found) == len(lesions.SHAPES)
        assert all(disc[lesion.distance(disc.shape) <= 0].min() > 0 for lesion in found)
        ends = np.array([(lesion.row, lesion.column) for lesion in found])
        assert min(np.hypot(*(a - b)) for i, a in enumerate(ends) for b in ends[:i]) >= 24

    def test_none_on_an_empty_slice(self):
        assert lesions.place(np.zeros((64, 64)), np.random.default_rng(0)) == []

    def test_correlation(self):
        image = np.random.default_rng(0).random((8, 8))
        assert correlation(image, 3 * image + 1) == pytest.approx(1)
        assert correlation(image, np.ones((8, 8))) == 0


class TestHiddenSamples:
    """Of scans that nobody knows the truth of."""

    def test_points(self):
        mask = torch.rand(96, 80, generator=torch.Generator().manual_seed(1)) < 0.3
        found = kspace.hidden(mask)
        assert found.shape == mask.shape
        assert not found[42:55, 35:46].any()
        assert 0.07 < float((found & mask).sum() / mask.sum()) < 0.12

    @pytest.mark.parametrize("axis", [0, 1])
    def test_lines_stay_whole(self, axis):
        mask = torch.zeros(96, 96, dtype=torch.bool)
        mask[:, ::2] = True
        mask[:, 40:56] = True
        found = kspace.hidden(mask.T if axis == 0 else mask)
        lines = found.T if axis == 0 else found
        assert (lines == lines[:1]).all()
        assert not lines[:, 42:55].any()
        assert 2 < int(lines[0].sum()) < 18
