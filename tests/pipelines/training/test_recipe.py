"""Recipes are typed data: what is not known is an error that says so."""

import pytest
import yaml

from medrecon.errors import InputError, UsageError
from medrecon.pipelines.training.cards import bundles, recipe_path
from medrecon.pipelines.training.recipe import TrainingRecipe, changed, load_training_recipe


def test_every_shipped_recipe_is_valid():
    names = bundles()
    assert {"mri-idm", "ct-idm", "cs-idm"} <= names.keys()
    for name in names:
        recipe = load_training_recipe(name)
        assert TrainingRecipe.from_dict(yaml.safe_load(recipe.to_yaml()), "again") == recipe


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: {kind: images, operator: ct-parallel-60, train: scans}\n")
    recipe = load_training_recipe(path, [("training.epochs", 3), ("data.counts", [1e4, 1e5])])
    assert [str(folder) for folder in recipe.data.train] == ["scans"]
    assert recipe.training.epochs == 3
    assert recipe.data.counts == (1e4, 1e5)
    assert load_training_recipe(tmp_path / "mine.yaml") == load_training_recipe(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training.epoch": 3}, r"test: unknown key 'training.epoch'; did you mean 'epochs'\?"),
        ({"trainig": 3}, r"unknown key 'trainig'; did you mean 'training'"),
        ({"data.patches": 3}, r"unknown key 'data.patches'; did you mean 'patch'"),
        ({"model.zzz": 3}, r"unknown key 'model.zzz'; known: method, preset"),
        ({"data.kind": "fastmr"}, r"data.kind: expected one of fastmri, images, phantoms, scans, got 'fastmr'"),
        ({"data": {"operator": "x"}}, r"data.kind: expected one of .*, got 'nothing'"),
        ({"data": {"kind": "fastmri"}}, r"'data.mask' is missing"),
        ({"training.batch_size": "two"}, r"training.batch_size: input should be a valid integer.*got 'two'"),
        ({"training.learning_rate": 0}, r"training.learning_rate: input should be greater than 0, got 0"),
        ({"training.loss": "l2"}, r"training.loss: input should be 'l1', .*'l1\+ssim' or 'relative-l1', got 'l2'"),
        ({"seed": -1}, r"seed: input should be greater than or equal to 0, got -1"),
        ({"training.epochs.first": 1}, r"training.epochs.first: epochs is a value, not a group of keys"),
    ],
)
def test_mistakes(recipe, change, message):
    with pytest.raises(UsageError, match=message):
        recipe(change)


def test_changes_leave_the_card_alone():
    card = {"training": {"epochs": 2}}
    assert changed(card, [("training.epochs", 3)]) == {"training": {"epochs": 3}}
    assert card == {"training": {"epochs": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", r"expected the keys name, seed, data"),
        ("a: [1\n", r"is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", r"is not valid YAML"),
        ("x" * 2_000_000, r"2000000 bytes are too many for a training recipe"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_training_recipe(tmp_path / "card.yaml")


def test_names():
    assert recipe_path("mri-idm").name == "train.yaml"
    with pytest.raises(UsageError, match=r"no training recipe is called 'mri-idn'; did you mean 'mri-idm'\?"):
        recipe_path("mri-idn")
    with pytest.raises(InputError, match=r"cannot be read as a training recipe"):
        load_training_recipe("nowhere/train.yaml")
