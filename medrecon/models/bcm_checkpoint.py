"""Checkpoints of the published BCM code (ImageNet, 64 pixels), read into diffusers' U-Net.

A published file, ``ema_0.99997_234000.pt``, is a plain dictionary of tensors with the names of OpenAI's guided
diffusion. Two times are joined there by ``time_embed_align``, a bias-free layer W = [W1 | W2]; it is folded into the
last layers of the two embeddings.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medrecon.errors import InputError
from medrecon.models.bcm_published import PublishedBCM

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}


def read_bcm_checkpoint(path: Path, *, head_channels: int = 64, groups: int = 32) -> PublishedBCM:
    """Return the network of a published file, by the weights alone: nothing in it is run.

    Parameters
    ----------
    path
        ``ema_*.pt``, the averaged weights, or ``model*.pt``; or the same tensors as safetensors.
    head_channels, groups
        Of the attention heads and the group norms, which the file does not tell; those of the paper.

    Raises
    ------
    InputError
        For files that are no such checkpoint.
    """
    try:
        state: object
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: is no file of tensors ({reason}); expected ema_*.pt of the published code"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(state).__name__}")
    return from_bcm_checkpoint(state, str(path), head_channels=head_channels, groups=groups)


def from_bcm_checkpoint(
    state: Mapping[str, Tensor], source: str = "state dict", *, head_channels: int = 64, groups: int = 32
) -> PublishedBCM:
    """Return the network of a published state dict, its shape read off the tensors; see :func:`read_bcm_checkpoint`.

    A consistency model, which has one time, becomes the start of fine-tuning: F does not depend on u.
    """
    state = {key: value.float() for key, value in state.items()}
    for key in ("time_embed.2.weight", "input_blocks.0.0.weight", "out.2.weight", "middle_block.1.qkv.weight"):
        if key not in state:
            raise InputError(f"{source}: lacks {key!r}; is it a checkpoint of the published BCM code?")
    bad = sorted(key for key, value in state.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise InputError(f"{source}: {len(bad)} tensors hold NaN or Inf, the first is {bad[0]!r}")
    if "time_embed_align.weight" not in state:
        unit = torch.eye(len(state["time_embed.2.bias"]))
        state["time_embed_align.weight"] = torch.cat((unit, torch.zeros_like(unit)), 1)
        state |= {
            key.replace("time_embed.", "time_embed_end."): value
            for key, value in state.items()
            if key.startswith("time_embed.")
        }
    shape = _shape(state, source)
    model = PublishedBCM(
        image_channels=len(state["out.2.weight"]),
        widths=shape.widths,
        layers=shape.layers,
        attention=shape.attention,
        head_channels=head_channels,
        groups=groups,
        classes=len(state.get("label_emb.weight", ())),
    )
    ours = _renamed(state, shape)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - ours.keys()), sorted(ours.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & ours.keys() if ours[key].shape != expected[key])
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has wrong shapes for", wrong)):
        if keys:
            raise InputError(f"{source}: {what} {len(keys)} tensors, the first is {keys[0]!r} in our names")
    model.load_state_dict(ours)
    return model.eval()


class _Shape(NamedTuple):
    widths: list[int]
    layers: int
    attention: list[int]


def _shape(state: Mapping[str, Tensor], source: str) -> _Shape:
    """Return what the names tell: an up-sampler is the last part of an output block, and a residual block itself."""
    blocks = len({key.split(".")[1] for key in state if key.startswith("output_blocks.")})
    upsamplers = {key.split(".")[1] for key in state if _is_upsampler(key)}
    levels = len(upsamplers) + 1
    layers = blocks // levels - 1
    if layers < 1 or blocks % levels:
        raise InputError(f"{source}: {blocks} output blocks for {levels} levels are not the published layout")
    starts = [1 + level * (layers + 1) for level in range(levels)]
    widths = []
    for start in starts:
        key = f"input_blocks.{start}.0.out_layers.3.bias"
        if key not in state:
            raise InputError(f"{source}: lacks {key!r}; this is not the published layout")
        widths.append(len(state[key]))
    attention = [level for level, start in enumerate(starts) if f"input_blocks.{start}.1.qkv.weight" in state]
    return _Shape(widths, layers, attention)


def _is_upsampler(key: str) -> bool:
    parts = key.split(".")
    return parts[0] == "output_blocks" and parts[2] != "0" and parts[3] == "in_layers"


def _parts(shape: _Shape) -> Iterator[tuple[str, str]]:
    """Yield (published prefix, our prefix) of every residual and attention block."""
    top = len(shape.widths) - 1
    place = 1
    for level in range(top + 1):
        block = f"down_blocks.{level}"
        for layer in range(shape.layers):
            yield f"input_blocks.{place}.0", f"{block}.resnets.{layer}"
            if level in shape.attention:
                yield f"input_blocks.{place}.1", f"{block}.attentions.{layer}"
            place += 1
        if level < top:
            yield f"input_blocks.{place}.0", f"{block}.downsamplers.0"
            place += 1
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    place = 0
    for index, level in enumerate(range(top, -1, -1)):
        block, attended = f"up_blocks.{index}", level in shape.attention
        for layer in range(shape.layers + 1):
            yield f"output_blocks.{place}.0", f"{block}.resnets.{layer}"
            if attended:
                yield f"output_blocks.{place}.1", f"{block}.attentions.{layer}"
            if level > 0 and layer == shape.layers:
                yield f"output_blocks.{place}.{2 if attended else 1}", f"{block}.upsamplers.0"
            place += 1


def _renamed(state: Mapping[str, Tensor], shape: _Shape) -> dict[str, Tensor]:
    """Return our state dict; what has no place in it keeps its name."""
    first, second = state["time_embed_align.weight"].chunk(2, 1)
    ours: dict[str, Tensor] = {}
    used = {"time_embed_align.weight"}
    ends = (("time_embed", "net.time_embedding", first), ("time_embed_end", "end_embedding", second))
    prefixes = {"input_blocks.0.0": "net.conv_in", "out.0": "net.conv_norm_out", "out.2": "net.conv_out"}
    prefixes |= {f"{published}.0": f"{own}.linear_1" for published, own, _ in ends}
    prefixes["label_emb"] = "label_embedding"
    for published, own in _parts(shape):
        table = _ATTENTION if f"{published}.qkv.weight" in state else _RESIDUAL
        prefixes |= {f"{published}.{key}": f"net.{own}.{value}" for key, value in table.items()}
        for kind in ("weight", "bias"):
            key = f"{published}.qkv.{kind}"
            if key in state:
                used.add(key)
                parts = zip("qkv", state[key].flatten(1 if kind == "weight" else 0).chunk(3), strict=True)
                ours |= {f"net.{own}.to_{letter}.{kind}": part for letter, part in parts}
    for published, own, share in ends:
        for kind in ("weight", "bias"):
            key = f"{published}.2.{kind}"
            if key in state:
                used.add(key)
                ours[f"{own}.linear_2.{kind}"] = share @ state[key]
    for key in state.keys() - used:
        prefix, _, kind = key.rpartition(".")
        own = f"{prefixes[prefix]}.{kind}" if prefix in prefixes else key
        linear = own.endswith(".to_out.0.weight")  # a convolution over a single axis there
        ours[own] = state[key].flatten(1) if linear else state[key]
    return ours
