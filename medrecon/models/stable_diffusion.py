"""Start from Stable Diffusion 1.5: read the tensors that the pruned U-Net keeps, and no others."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medrecon.errors import InputError
from medrecon.models.idm import InvertibleDiffusionModel

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_KEPT = re.compile(
    r"(conv_in|conv_norm_out|conv_out|down_blocks\.0|down_blocks\.1\.(resnets|attentions)|up_blocks\.[23])\."
)
_DROPPED = re.compile(r"time_emb_proj\.|transformer_blocks\.\d+\.(attn2|norm2)\.")
_EXPECTED: dict[str, Any] = {
    "layers_per_block": 2,
    "in_channels": 4,
    "out_channels": 4,
    "act_fn": "silu",
    "use_linear_projection": False,
}


def from_stable_diffusion(folder: str | Path, *, image_channels: int = 1, steps: int = 3) -> InvertibleDiffusionModel:
    """Return a model whose U-Net starts as that of a local Stable Diffusion 1.x folder in diffusers' layout.

    Kept are 294 of 686 tensors; injectors, α, v and the scale factors start fresh. With more than one
    image channel the first convolution is repeated at 1/C of its weight, and the last one C times.
    The weights of Stable Diffusion 1.5 carry the CreativeML OpenRAIL-M licence, which goes on with them.

    Parameters
    ----------
    folder
        With ``unet/config.json`` and ``unet/diffusion_pytorch_model.safetensors``, or the ``unet`` itself.
    image_channels
        C: 1, 2 or 3.
    steps
        T.

    Raises
    ------
    InputError
        For a folder that is not there, lacks files or tensors, or holds another architecture.
    """
    unet = Path(folder) / "unet" if (Path(folder) / "unet").is_dir() else Path(folder)
    config = _config(unet)
    heads = config["attention_head_dim"]  # the number of heads, by a mistake that stayed
    model = InvertibleDiffusionModel(
        image_channels=image_channels,
        steps=steps,
        widths=config["block_out_channels"][:2],
        heads=[heads, heads],
        groups=config["norm_num_groups"],
    )
    kept = _tensors(unet)
    for name, share in (("conv_in.weight", True), ("conv_out.weight", False), ("conv_out.bias", False)):
        if name in kept:
            kept[name] = _repeated(kept[name], image_channels, dim=1 if share else 0, share=share)
    own = model.unet.state_dict()
    fresh = {key for key in own if ".injectors." in key or key.endswith((".theta", ".input_help", ".merge"))}
    missing, extra = sorted(own.keys() - fresh - kept.keys()), sorted(kept.keys() - own.keys())
    wrong = sorted(key for key in kept.keys() & own.keys() if kept[key].shape != own[key].shape)
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has wrong shapes for", wrong)):
        if keys:
            raise InputError(
                f"{unet}: {what} {len(keys)} tensors of the U-Net, the first is {keys[0]!r}; expected Stable "
                "Diffusion 1.5"
            )
    model.unet.load_state_dict(kept, strict=False)
    return model


def _config(unet: Path) -> dict[str, Any]:
    path = unet / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a Stable Diffusion 1.5 folder as diffusers saves it"
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a mapping, got {type(config).__name__}")
    wrong = {key: config.get(key) for key, value in _EXPECTED.items() if config.get(key, value) != value}
    widths, heads = config.get("block_out_channels"), config.get("attention_head_dim", 8)
    if wrong or not isinstance(widths, list) or len(widths) != 4 or not isinstance(heads, int):
        found = wrong or {"block_out_channels": widths, "attention_head_dim": heads}
        raise InputError(
            f"{path}: is no Stable Diffusion 1.x U-Net, found {found}; expected {_EXPECTED}, four block_out_channels "
            "and one attention_head_dim (Stable Diffusion 2 and XL are wired differently)"
        )
    return {"norm_num_groups": 32, **config, "attention_head_dim": heads}


def _tensors(unet: Path) -> dict[str, Tensor]:
    """Return the kept tensors by our names, in float32."""
    path = next((unet / name for name in _WEIGHTS if (unet / name).is_file()), None)
    if path is None:
        others = sorted(file.name for file in unet.glob("*.bin"))
        hint = f"; {others[0]} is a pickle, save it as safetensors with diffusers first" if others else ""
        raise InputError(f"{unet}: has neither {' nor '.join(_WEIGHTS)}{hint}")
    kept = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                if _KEPT.match(key) and not _DROPPED.search(key):
                    name = key.replace("up_blocks.2.", "up_blocks.0.").replace("up_blocks.3.", "up_blocks.1.")
                    kept[name] = file.get_tensor(key).float()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is the download complete?") from error
    bad = sorted(key for key, value in kept.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise InputError(f"{path}: {len(bad)} tensors hold NaN or Inf, the first is {bad[0]!r}")
    return kept


def _repeated(tensor: Tensor, count: int, *, dim: int, share: bool) -> Tensor:
    return torch.cat([tensor] * count, dim=dim) / (count if share else 1)
