"""Models by name, and trained ones from folders that say what they hold."""

import json
from importlib.metadata import EntryPoint

import pytest
import torch
from diffusers.configuration_utils import register_to_config

from medrecon.errors import InputError, UsageError
from medrecon.models import (
    InvertibleDiffusionModel,
    ReconstructionModel,
    UNetBaseline,
    UnrolledNetwork,
    available_models,
    build_model,
    load_trained,
    model_class,
    register_model,
    registry,
)

OWN = {"idm": InvertibleDiffusionModel, "unet": UNetBaseline, "varnet": UnrolledNetwork}


class Start(ReconstructionModel):
    """Where others begin, times a number."""

    @register_to_config
    def __init__(self, image_channels: int = 1, gain: float = 1.0, intensity: float | None = None) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor([float(gain)]))

    @classmethod
    def preset_config(cls, name, *, image_channels=1, parameters=None):
        return {"image_channels": image_channels, **(parameters or {})}

    def _images(self, y, operator, initial):
        return self.factor * initial


@pytest.fixture
def plugged(monkeypatch):
    """``plugged(name, value)`` installs an entry point of another package."""
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return lambda name, value: points.append(EntryPoint(name, value, "medrecon.models"))


def test_own_models():
    models = available_models()
    assert models.keys() >= OWN.keys()
    for name, cls in OWN.items():
        assert model_class(name) is cls
        assert cls.registered_name == name
        assert models[name] == cls.__doc__.partition("\n")[0]


@pytest.mark.parametrize("name", OWN)
def test_build_and_load(name, tmp_path):
    torch.manual_seed(0)
    model = build_model(name, image_channels=2, preset="tiny", parameters={"intensity": 3.0})
    assert type(model) is OWN[name]
    assert (model.settings.image_channels, model.settings.intensity) == (2, 3.0)
    model.save(tmp_path / "run" / "model")
    for folder in (tmp_path / "run", str(tmp_path / "run" / "model")):
        back = load_trained(folder)
        assert type(back) is OWN[name]
        assert all(torch.equal(value, back.state_dict()[key]) for key, value in model.state_dict().items())


def test_small_is_the_default():
    assert (
        build_model("unet", image_channels=2).settings.features == UNetBaseline.from_preset("small").settings.features
    )
    assert build_model("idm", image_channels=1).settings.widths == [24, 48]


def test_steps_choose_the_noise_levels():
    model = build_model("idm", image_channels=1, preset="tiny", parameters={"steps": 5})
    wanted = InvertibleDiffusionModel.from_preset("tiny", steps=5).settings
    assert model.settings.alphas == wanted.alphas
    assert len(model.settings.alphas) == 5


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unett", {}, r"no model is called 'unett'; did you mean 'unet'\?"),
        ("qqqqq", {}, r"no model is called 'qqqqq'; known: .*idm, unet, varnet"),
        (
            "varnet",
            {"preset": "bse"},
            r"model 'varnet': no preset is called 'bse', there are base, .*did you mean 'base'",
        ),
        ("idm", {"preset": "huge"}, r"model 'idm': no preset is called 'huge', there are sd15, base, small, tiny$"),
        (
            "varnet",
            {"parameters": {"cascade": 3}},
            r"model 'varnet' has no parameter 'cascade': did you mean 'cascades'",
        ),
        (
            "unet",
            {"parameters": {"image_channels": 3}},
            r"'unet' has no parameter 'image_channels': .*takes features, ",
        ),
        (
            "varnet",
            {"parameters": {"cascades": 0}},
            r"model 'varnet' cannot be built .*: .*cascades must be at least 1",
        ),
        ("unet", {"parameters": {"features": [8]}}, r"'unet' cannot be built .*: features: expected six positive"),
        (
            "idm",
            {"parameters": {"steps": "many"}},
            r"model 'idm' cannot be built with image_channels=1, {'steps': 'many'}",
        ),
    ],
)
def test_mistakes(name, arguments, message):
    with pytest.raises(UsageError, match=message):
        build_model(name, **{"image_channels": 1, **arguments})


def test_folders_without_a_known_model(tmp_path):
    with pytest.raises(
        InputError, match=r"none: no such folder; expected a model as ReconstructionModel.save\(\) writ"
    ):
        load_trained(tmp_path / "none")
    with pytest.raises(InputError, match=r"lacks config.json; expected a model as"):
        load_trained(tmp_path)
    for text, found in (('{"_class_name": "UNet2DModel"}', "UNet2DModel"), ("[]", "None")):
        (tmp_path / "config.json").write_text(text)
        known = "InvertibleDiffusionModel, UNetBaseline, UnrolledNetwork; is the package installed"
        with pytest.raises(InputError, match=f"config.json: describes a {found}, expected one of .*{known}"):
            load_trained(tmp_path)


def test_entry_point(plugged, monkeypatch, tmp_path):
    import medrecon.models.base as host

    monkeypatch.setattr(host, "Start", Start, raising=False)
    Start(gain=3.0).save(tmp_path)
    with pytest.raises(InputError, match="describes a Start, expected one of"):
        load_trained(tmp_path)
    plugged("start", "medrecon.models.base:Start")
    back = load_trained(tmp_path)
    assert isinstance(back, Start)
    assert float(back.factor.detach()) == 3.0
    assert available_models()["start"] == "Where others begin, times a number."
    assert build_model("start", image_channels=1, parameters={"gain": 2}).settings.gain == 2


def test_broken_entry_points_are_listed_and_named(plugged):
    plugged("broken", "no_such_package:Thing")
    plugged("wrong", "medrecon.errors:UsageError")
    assert "(not usable: model 'broken': no_such_package:Thing cannot be imported" in available_models()["broken"]
    with pytest.raises(UsageError, match=r"model 'wrong': medrecon\.errors:UsageError is not a ReconstructionModel"):
        model_class("wrong")


@pytest.mark.parametrize("names", [["unet"], ["mine", "mine"]])
def test_claimed_names(plugged, names):
    for index, name in enumerate(names):
        plugged(name, f"elsewhere:Model{index}")
    with pytest.raises(UsageError, match=f"model name {names[0]!r} of elsewhere:Model.* is taken by .*: uninstall one"):
        available_models()


def test_registering_by_hand(plugged, tmp_path):
    assert register_model("start")(Start) is Start
    assert model_class("start") is Start
    Start().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "Start"
    assert isinstance(load_trained(tmp_path), Start)

    class Other(Start):
        pass

    with pytest.raises(UsageError, match="model name 'start' is taken by"):
        register_model("start")(Other)
    with pytest.raises(UsageError, match=r"model name 'unet' is taken by medrecon.models.baseline_unet:UNetBaseline"):
        register_model("unet")(Other)
