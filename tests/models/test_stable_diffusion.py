"""Start from a Stable Diffusion folder, made here at small width in diffusers' own layout."""

import copy
import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from medrecon.errors import InputError
from medrecon.models.stable_diffusion import from_stable_diffusion
from medrecon.operators import Inpainting

NAME = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64, 128, 128), cross_attention_dim=16, attention_head_dim=8, norm_num_groups=32
    )


@pytest.fixture
def folder(original, tmp_path):
    original.save_pretrained(tmp_path / "unet")
    return tmp_path


def test_keeps_the_right_tensors(original, folder):
    model = from_stable_diffusion(folder, steps=2)
    theirs, ours = original.state_dict(), model.unet.state_dict()
    pairs = {
        "conv_in.weight": "conv_in.weight",
        "down_blocks.1.resnets.0.conv_shortcut.weight": "down_blocks.1.resnets.0.conv_shortcut.weight",
        "down_blocks.0.downsamplers.0.conv.bias": "down_blocks.0.downsamplers.0.conv.bias",
        "up_blocks.0.resnets.2.norm2.weight": "up_blocks.2.resnets.2.norm2.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "up_blocks.2.upsamplers.0.conv.weight",
        "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj.weight": (
            "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight"
        ),
    }
    for own, name in pairs.items():
        assert torch.equal(ours[own], theirs[name]), own
    fresh = [key for key in ours if ".injectors." in key or key.endswith((".theta", ".input_help", ".merge"))]
    assert len(ours) - len(fresh) == 294
    with torch.no_grad():
        assert model(torch.rand(1, 1, 8, 8), Inpainting(torch.ones(1, 8, 8))).isfinite().all()


def test_residual_and_attention_layers_compute_the_same(original, folder):
    """The kept layers on the same features as in diffusers, cross-attention aside."""
    model = from_stable_diffusion(folder / "unet")
    x = torch.randn(2, 32, 6, 5)
    theirs = copy.deepcopy(original.down_blocks[0])
    with torch.no_grad():
        silent = theirs.resnets[0]
        silent.time_emb_proj.weight.zero_()
        silent.time_emb_proj.bias.zero_()
        found, wanted = model.unet.down_blocks[0].resnets[0](x), silent(x, torch.zeros(2, 128))
        assert torch.allclose(found, wanted, atol=1e-5)
        layer = theirs.attentions[0]
        layer.transformer_blocks[0].attn2.to_out[0].weight.zero_()
        layer.transformer_blocks[0].attn2.to_out[0].bias.zero_()
        wanted = layer(x, encoder_hidden_states=torch.zeros(2, 1, 16), return_dict=False)[0]
        assert torch.allclose(model.unet.down_blocks[0].attentions[0](x), wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 3])
def test_more_channels(original, folder, channels):
    model = from_stable_diffusion(folder, image_channels=channels)
    weight = original.conv_in.weight
    for channel in range(channels):
        part = model.unet.conv_in.weight[:, 4 * channel : 4 * channel + 4]
        assert torch.allclose(part, weight / channels)
        assert torch.equal(model.unet.conv_out.weight[4 * channel : 4 * channel + 4], original.conv_out.weight)


def test_half_precision_folder(original, tmp_path):
    state = {key: value.half() for key, value in original.state_dict().items()}
    save_file(state, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(dict(original.config)))
    model = from_stable_diffusion(tmp_path)
    assert model.unet.conv_in.weight.dtype == torch.float32
    assert torch.allclose(model.unet.conv_in.weight, original.conv_in.weight, atol=1e-3)


def edit(folder, action):
    path = folder / "unet" / NAME
    state = load_file(path)
    action(state)
    save_file(state, path)


def configure(folder, **values):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "unet" / "config.json").unlink(), r"config.json: cannot be read"),
        (lambda f: (f / "unet" / "config.json").write_text("[1]"), r"expected a mapping, got list"),
        (lambda f: configure(f, use_linear_projection=True), r"is no Stable Diffusion 1.x U-Net, found .*linear"),
        (lambda f: configure(f, block_out_channels=[320, 640, 1280]), r"four block_out_channels"),
        (lambda f: (f / "unet" / NAME).unlink(), r"has neither diffusion_pytorch_model.safetensors nor"),
        (lambda f: (f / "unet" / NAME).rename(f / "unet" / "x.bin"), r"x.bin is a pickle, save it as safetensors"),
        (lambda f: (f / "unet" / NAME).write_bytes(b"abc"), r"cannot be read .* is the download complete"),
        (lambda f: edit(f, lambda s: s.pop("conv_in.bias")), r"lacks 1 tensors of the U-Net, .*'conv_in.bias'"),
        (lambda f: edit(f, lambda s: s.update({"conv_in.extra": torch.ones(1)})), r"has unexpected 1 tensors"),
        (lambda f: edit(f, lambda s: s.update({"conv_in.bias": torch.ones(5)})), r"has wrong shapes for 1 tensors"),
        (lambda f: edit(f, lambda s: s["conv_in.bias"].fill_(float("inf"))), r"1 tensors hold NaN or Inf"),
    ],
)
def test_other_folders(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        from_stable_diffusion(folder)
