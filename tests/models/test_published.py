"""Published IDM checkpoints: the same numbers as the published equations, there and back."""

import pytest
import torch

from medrecon.errors import InputError
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.published import (
    block_cs_recipe,
    from_published,
    published_names,
    ratio_of,
    read_published,
    to_published,
)
from medrecon.operators import BlockCompressedSensing
from medrecon.operators.recipes import load_recipe


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_same_numbers_as_the_equations(published_state, published_model, steps):
    state = published_state(steps=steps)
    model = from_published(state)
    operator = BlockCompressedSensing((1, 32, 24), 0.3, block_size=16)
    y = operator(torch.rand(2, 1, 32, 24, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        found = model(y, operator)
        double = {key: value.double() for key, value in state.items()}
        wanted = published_model(double, y.double(), operator)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()
    with torch.no_grad():
        found = model.double()(y.double(), operator)
    assert (found - wanted).abs().max() <= 1e-6 * wanted.abs().max()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_key_table(published_state, steps):
    """757 / 918 / 1079 names for 423 / 504 / 585 tensors at T = 1, 2, 3."""
    state = published_state(steps=steps)
    assert len(state) == 596 + 161 * steps
    assert len({value.data_ptr() for value in state.values()}) == 342 + 81 * steps
    model = from_published(state)
    assert len(published_names(model)) == 342 + 81 * steps


def test_export_gives_the_file_back(published_state, tmp_path):
    state = published_state(steps=2)
    back = to_published(from_published(state))
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].shape == value.shape, key
        assert torch.allclose(back[key], value, rtol=0, atol=3e-7), key
    assert torch.equal(back["unet.conv_in.weight"], state["unet.conv_in.weight"])
    torch.save(back, tmp_path / "net_params_50.pkl")
    again = read_published(tmp_path / "net_params_50.pkl")
    assert torch.allclose(again.alpha(), state["alpha"], atol=1e-6)


def test_unusual_scalars_widen_the_bounds(published_state):
    state = published_state(steps=1)
    state["alpha"] = torch.tensor([0.9999])
    state["body.0.v"] = torch.tensor([-0.2])
    model = from_published(state)
    assert model.v().tolist() == pytest.approx([-0.2], abs=1e-6)
    assert model.alpha().tolist() == pytest.approx([0.9999], abs=1e-6)


def test_published_size_without_memory():
    """115 247 733 + 6 022 T, and every name of the published file at full width."""
    with torch.device("meta"):
        for steps in (1, 2, 3, 4):
            model = InvertibleDiffusionModel.from_preset("sd15", steps=steps)
            assert sum(parameter.numel() for parameter in model.parameters()) == 115_247_733 + 6_022 * steps
            assert model.count_operator_calls() == 21 * steps
    assert sum(parameter.numel() for parameter in InvertibleDiffusionModel.from_preset("tiny").parameters()) < 50_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("alpha"), r"lacks 'alpha'; is it a checkpoint"),
        (lambda state: state.pop("unet.conv_out.bias"), r"lacks 1 tensors, the first is 'unet.conv_out.bias'"),
        (lambda state: state.update(other=torch.zeros(1)), r"has unexpected 1 tensors, the first is 'other'"),
        (lambda state: state["unet.conv_in.bias"].fill_(float("nan")), r"1 tensors hold NaN or Inf"),
        (lambda state: state["alpha"].fill_(1.5), r"alpha must lie in \(0, 1\)"),
        (lambda state: state.update({"unet.conv_in.bias": torch.zeros(3)}), r"has wrong shapes for 1 tensors"),
    ],
)
def test_other_files_are_refused(published_state, change, message):
    state = published_state(steps=1)
    change(state)
    with pytest.raises(InputError, match=message):
        from_published(state)


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"no such file"):
        read_published(tmp_path / "missing.pkl")
    (tmp_path / "text.pkl").write_text("hello")
    with pytest.raises(InputError, match=r"is no file of tensors"):
        read_published(tmp_path / "text.pkl")
    torch.save([1, 2], tmp_path / "list.pkl")
    with pytest.raises(InputError, match=r"expected a dictionary of tensors, got list"):
        read_published(tmp_path / "list.pkl")


def test_recipe_of_the_measurements(tmp_path):
    card = tmp_path / "operator.yaml"
    card.write_text(block_cs_recipe(0.1))
    operator = load_recipe(card).draw((64, 32), torch.Generator().manual_seed(0))
    assert operator.data_shape == (1, 2 * 103)
    assert ratio_of(tmp_path / "R_0.10_T_3_B_32" / "net_params_50.pkl") == pytest.approx(0.1)
    assert ratio_of(tmp_path / "net_params_50.pkl") is None
