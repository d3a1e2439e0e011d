"""Checkpoints of the published IDM code: read into our model, and written back.

A published file is a pickled dictionary of tensors, ``weight/R_0.10_T_3_B_32/net_params_50.pkl``. It holds
every layer of a reversible chain twice, by its own name and as the body of a link; the second are dropped.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.errors import InputError
from medrecon.models.blocks import DownBlock, UpBlock
from medrecon.models.idm import InvertibleDiffusionModel
from medrecon.operators.block_cs import BlockCompressedSensing

_BODY = re.compile(r"rev_module_lists?\.[\d.]*body\.")
_INJECTOR = re.compile(r"(.*\.injectors\.\d+)\.(f2i|i2f)\.(\d+)\.[01]\.(weight|bias)$")
_OURS = re.compile(r"(.*\.injectors\.\d+)\.(\d+)\.(f2i|i2f)\.(weight|bias)$")
_POSITION = {"f2i": 1, "i2f": 0}  # next to a pixel shuffle, before or after it
_MARGIN = 0.05


class Link(NamedTuple):
    """One layer of a reversible chain: the name of its link in a published file, and that of the layer."""

    link: str
    layer: str


def read_published(path: Path, *, heads: int = 8, groups: int = 32) -> InvertibleDiffusionModel:
    """Return the model of a published checkpoint.

    T and the widths are read off the tensors. The values of α and v keep single precision (about 1e-7);
    where they lie outside the usual bounds, these are widened.

    Parameters
    ----------
    path
        ``net_params_*.pkl``.
    heads, groups
        Attention heads and groups of the norms, which the file does not tell; those of the paper.

    Raises
    ------
    InputError
        For files that are no such checkpoint, lack tensors, have others, or hold NaN.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: is no file of tensors ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "expected net_params_50.pkl or the like from the published IDM code"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(state).__name__}")
    return from_published(state, str(path), heads=heads, groups=groups)


def from_published(
    state: Mapping[str, Tensor], source: str = "state dict", *, heads: int = 8, groups: int = 32
) -> InvertibleDiffusionModel:
    """Return the model of a published state dict; see :func:`read_published`."""
    state = {key: value.float() for key, value in state.items() if not _BODY.search(key)}
    needed = ("alpha", "unet.conv_in.weight", "unet.down_blocks.1.resnets.0.conv1.weight")
    for key in needed:
        if key not in state:
            raise InputError(f"{source}: lacks {key!r}; is it a checkpoint of the published IDM code?")
    bad = sorted(key for key, value in state.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise InputError(f"{source}: {len(bad)} tensors hold NaN or Inf, the first is {bad[0]!r}")
    alpha = state["alpha"].reshape(-1)
    v = torch.cat([value.reshape(-1) for key, value in state.items() if key.endswith(".v")])
    if not bool(((alpha > 0) & (alpha < 1)).all()) or not v.numel():
        raise InputError(f"{source}: alpha must lie in (0, 1) and every chain have its v, got alpha {alpha.tolist()}")
    model = InvertibleDiffusionModel(
        steps=len(alpha),
        widths=[int(state[key].shape[0]) for key in needed[1:]],
        heads=[heads, heads],
        groups=groups,
        alpha_bounds=(min(0.05, float(alpha.min()) / 2), max(0.999, (1 + float(alpha.max())) / 2)),
        mix_bounds=(min(0.05, float(v.min()) - _MARGIN), max(0.95, float(v.max()) + _MARGIN)),
    )
    names = published_names(model)
    expected = _shapes(model, names)
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & state.keys() if state[key].shape != expected[key])
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has wrong shapes for", wrong)):
        if keys:
            raise InputError(f"{source}: {what} {len(keys)} tensors, the first is {keys[0]!r}")
    model.load_state_dict(_ours(model, state, names))
    return model


def to_published(model: InvertibleDiffusionModel) -> dict[str, Tensor]:
    """Return the state dict of the published code, aliases included: the inverse of :func:`from_published`."""
    values = model.state_dict()
    values["alpha.theta"] = model.alpha().detach()
    values["v.theta"] = model.v().detach()
    for name, block in _blocks(model):
        values[f"{name}.v.theta"] = block.v().detach()
    state = {}
    for published, (own, index) in published_names(model).items():
        state[published] = values[own] if index is None else values[own][index : index + 1]
    for _, block_links in _links(model):
        for link in block_links:
            prefix = f"{link.layer}."
            bodies = {key: value for key, value in state.items() if key.startswith(prefix)}
            state |= {f"{link.link}.body.{key.removeprefix(prefix)}": value for key, value in bodies.items()}
    return state


def published_names(model: InvertibleDiffusionModel) -> dict[str, tuple[str, int | None]]:
    """Return, for every tensor of a published checkpoint, our name and the element of a vector (None: all of it)."""
    names: dict[str, tuple[str, int | None]] = {
        "alpha": ("alpha.theta", None),
        "input_help_scale_factor": ("input_help", None),
        "merge_scale_factor": ("merge", None),
    }
    names |= {f"body.{i}.v": ("v.theta", i) for i in range(model.settings.steps)}
    for name, block in _blocks(model):
        plural = "s" if isinstance(block, DownBlock) else ""
        names[f"{name}.input_help_scale_factor"] = (f"{name}.input_help", None)
        names[f"{name}.merge_scale_factor{plural}"] = (f"{name}.merge", None)
    for name, links in _links(model):
        names |= {f"{link.link}.v": (f"{name}.v.theta", n) for n, link in enumerate(links)}
    for own in model.state_dict():
        if own.endswith((".theta", "input_help", "merge")):
            continue
        injector = _OURS.match(own)
        published = own
        if injector:
            site, step, half, kind = injector.groups()
            published = f"{site}.{half}.{step}.{_POSITION[half]}.{kind}"
        names[published] = (own, None)
    return names


def block_cs_recipe(ratio: float, *, block_size: int = 32, seed: int = 2025) -> str:
    """Return the recipe (YAML) of the operator that a published checkpoint was trained for, with a hash of Φ.

    The published Φ is drawn anew in every process, from another generator on each device, and is not in
    the file: the weights do not depend on it. This one is the same everywhere.
    """
    operator = BlockCompressedSensing((1, block_size, block_size), ratio, block_size=block_size, seed=seed)
    # rounded: the last bits of an SVD differ between machines
    digest = hashlib.sha256((operator.phi_double * 1e6).round().to(torch.int64).numpy().tobytes()).hexdigest()
    return (
        f"name: idm-cs-{round(100 * ratio)}\n"
        f'description: "Block compressed sensing at {100 * ratio:g} %, as the published IDM was trained for"\n'
        "operator: block-compressed-sensing\n"
        f"parameters: {{ratio: {ratio}, block_size: {block_size}, seed: {seed}}}\n"
        f"# sha256 of Φ in units of 1e-6: {digest}\n"
    )


def ratio_of(path: Path) -> float | None:
    """Return the ratio that the folder of a published checkpoint names, as in ``R_0.10_T_3_B_32``; else None."""
    found = re.match(r"R_(0?\.\d+|1(?:\.0*)?)_T_\d+", path.resolve().parent.name)
    return float(found.group(1)) if found else None


def _blocks(model: InvertibleDiffusionModel) -> Iterator[tuple[str, DownBlock | UpBlock]]:
    for kind in ("down_blocks", "up_blocks"):
        for index, block in enumerate(getattr(model.unet, kind)):
            yield f"unet.{kind}.{index}", block


def _links(model: InvertibleDiffusionModel) -> Iterator[tuple[str, list[Link]]]:
    for name, block in _blocks(model):
        down = isinstance(block, DownBlock)
        links = []
        for j, layers in enumerate(block.order):
            chain = f"{name}.rev_module_lists.{j}" if down else f"{name}.rev_module_list"
            links += [Link(f"{chain}.{k}", f"{name}.{kind}.{i}") for k, (kind, i) in enumerate(layers)]
        yield name, links


def _shapes(model: InvertibleDiffusionModel, names: Mapping[str, tuple[str, int | None]]) -> dict[str, torch.Size]:
    state = model.state_dict()
    return {
        published: state[own].shape if index is None else torch.Size([1]) for published, (own, index) in names.items()
    }


def _ours(
    model: InvertibleDiffusionModel, state: Mapping[str, Tensor], names: Mapping[str, tuple[str, int | None]]
) -> dict[str, Tensor]:
    """Return our state dict; the bounded scalars as θ."""
    parts: dict[str, list[Tensor]] = {}
    for published, (own, _) in names.items():
        parts.setdefault(own, []).append(state[published])
    ours = {own: tensors[0] if len(tensors) == 1 else torch.cat(tensors) for own, tensors in parts.items()}
    ours["alpha.theta"] = model.alpha.inverse(ours["alpha.theta"])
    ours["v.theta"] = model.v.inverse(ours["v.theta"])
    for name, block in _blocks(model):
        ours[f"{name}.v.theta"] = block.v.inverse(ours[f"{name}.v.theta"])
    return ours
