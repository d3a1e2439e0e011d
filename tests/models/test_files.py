"""Models as folders: whole, checked, and with errors that say what to do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medrecon.errors import InputError
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.files import WEIGHTS


@pytest.fixture
def folder(tiny, tmp_path):
    tiny(image_channels=2, steps=2).save(tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(tiny, folder):
    model, back = tiny(image_channels=2, steps=2), InvertibleDiffusionModel.load(folder)
    assert plain(back) == plain(model)
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", WEIGHTS]
    assert "parameters" in (folder / "README.md").read_text()
    again = InvertibleDiffusionModel.from_pretrained(folder, low_cpu_mem_usage=False)  # diffusers' own door
    assert torch.equal(again.alpha.theta, model.alpha.theta)


def plain(model):
    return json.loads(json.dumps({key: value for key, value in model.config.items() if not key.startswith("_")}))


def test_saving_replaces_and_keeps_a_card(tiny, folder):
    tiny(image_channels=2, steps=1).save(folder, card="# Ours\n")
    back = InvertibleDiffusionModel.load(folder)
    assert back.settings.steps == 1
    back.save(folder / "again")
    assert str(folder) not in (folder / "again" / "config.json").read_text()  # where it came from is nobody's business
    assert (folder / "README.md").read_text() == "# Ours\n"


def test_no_tensor_is_stored_twice(tiny, folder):
    stored = load_file(folder / WEIGHTS)
    assert len(stored) == len(dict(tiny(image_channels=2, steps=2).named_parameters()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"lacks config.json; expected a model as"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config.json: cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"describes a None, expected"),
        (lambda folder: (folder / "config.json").write_text('{"_class_name": "UNet2DModel"}'), r"describes a UNet2D"),
        (lambda folder: (folder / WEIGHTS).unlink(), r"lacks diffusion_pytorch_model.safetensors; is the download"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\0" * 100), r"cannot be loaded"),
        (lambda folder: shorten(folder / WEIGHTS), r"cannot be loaded"),
        (lambda folder: change(folder, steps=3), r"cannot be loaded|lacks \d+ tensors"),
        (lambda folder: change(folder, widths=[16, 32]), r"cannot be loaded"),
        (lambda folder: change(folder, widths="many"), r"cannot be loaded"),
        (lambda folder: edit(folder, lambda state: state.pop("unet.conv_in.bias")), r"lacks 1 tensors, the first is"),
        (lambda folder: edit(folder, lambda state: state.update(x=torch.ones(1))), r"has unexpected 1 tensors"),
        (lambda folder: edit(folder, lambda state: state["merge"].fill_(float("nan"))), r"1 tensors hold NaN or Inf"),
    ],
)
def test_damaged_folders(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        InvertibleDiffusionModel.load(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"no such folder; expected a model as"):
        InvertibleDiffusionModel.load(tmp_path / "none")
    (tmp_path / "net_params_50.pkl").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a file, expected the folder of a model; 'medrecon convert-idm'"):
        InvertibleDiffusionModel.load(tmp_path / "net_params_50.pkl")


def shorten(path):
    path.write_bytes(path.read_bytes()[:-50])


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit(folder, action):
    state = load_file(folder / WEIGHTS)
    action(state)
    save_file(state, folder / WEIGHTS)
