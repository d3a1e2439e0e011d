"""Small training runs: phantoms of 24 x 20 pixels, the tiny model, one step."""

import pytest

from medrecon.pipelines.training.recipe import TrainingRecipe, changed

CARD = {
    "name": "test",
    "data": {"kind": "phantoms", "operator": "mri-singlecoil-4x", "count": 8, "size": [24, 20], "validation": 0.25},
    "model": {"method": "idm", "preset": "tiny", "parameters": {"steps": 1}, "memory": "none"},
    "training": {
        "epochs": 2,
        "batch_size": 2,
        "workers": 0,
        "log_every": 1,
        "warm_up": 2,
        "learning_rate": 2e-3,
        "ema": 0.9,
    },
    "validation": {"pictures": 1},
}


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRECON_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def make_recipe():
    """Factory: the small recipe with changes under dotted keys, ``recipe({"training.epochs": 3})``."""

    def make(changes=None):
        return TrainingRecipe.from_dict(changed(CARD, list((changes or {}).items())), "test")

    return make


@pytest.fixture
def recipe(make_recipe):
    """The same for single tests."""
    return make_recipe


@pytest.fixture
def fastmri_recipe(recipe, fastmri_folder):
    """Factory: the same on small fastMRI volumes."""

    def make(changes=None, folder=None):
        data = {
            "kind": "fastmri",
            "train": str(folder or fastmri_folder("multi", 4, 2)),
            "validation": 0.25,
            "mask": {"sampler": "random", "acceleration": [4], "center_fraction": [0.16]},
        }
        return recipe({"data": data, **(changes or {})})

    return make
