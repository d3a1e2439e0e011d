"""``medrecon convert-idm``: published IDM checkpoints in and out."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from medrecon.cli.console import print_json, print_line
from medrecon.cli.options import Json, Overwrite
from medrecon.cli.runtime import say, set_up_log
from medrecon.errors import UsageError


def convert_idm(
    source: Annotated[Path, Parameter(help="net_params_50.pkl of the published code, or a model folder.")],
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o", help="Model folder, or a .pkl file for the published code.")],
    ratio: Annotated[
        float | None,
        Parameter(help="Sampling ratio it was trained for; default: what the folder's name says (R_0.10_T_3_B_32)."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of the published IDM code to a model folder, or a model folder back.

    The folder holds config.json, the weights as safetensors, a model card and, where the ratio is known,
    operator.yaml, the recipe of the block compressed sensing that the model was trained for. Pickles are
    read as tensors only; nothing in them runs.

    Examples: medrecon convert-idm weight/R_0.10_T_3_B_32/net_params_50.pkl -o idm-cs-10;
    medrecon convert-idm idm-cs-10 -o net_params_50.pkl
    """
    set_up_log(quiet=False)
    if ratio is not None and not 0 < ratio <= 1:
        raise UsageError(f"--ratio: expected a number in (0, 1], got {ratio}")
    there = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if there and not overwrite:
        raise UsageError(f"{output} exists; give another -o, or --overwrite")
    result = _export(source, output) if source.is_dir() else _import(source, output, ratio)
    if as_json:
        print_json(result)
    else:
        print_line(str(output))


def _import(source: Path, output: Path, ratio: float | None) -> dict[str, object]:
    from medrecon.models.published import block_cs_recipe, ratio_of, read_published

    if output.is_file() or output.suffix == ".pkl":
        raise UsageError(f"-o {output}: a published checkpoint becomes a folder; give the name of one")
    ratio = ratio_of(source) if ratio is None else ratio
    model = read_published(source)
    alpha, v = model.alpha().tolist(), model.mixes().tolist()
    model.save(output)
    if ratio is not None:
        (output / "operator.yaml").write_text(block_cs_recipe(ratio))
    steps = len(alpha)
    say(
        f"{source.name}: T = {steps}, alpha {min(alpha):.3f} to {max(alpha):.3f}, v {min(v):.3f} to {max(v):.3f}"
        + ("; give --ratio to have the operator written as well" if ratio is None else f", ratio {ratio:g}")
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, object] = {"output": str(output), "steps": steps, "parameters": count, "ratio": ratio}
    return {**found, "alpha": alpha, "v": [min(v), max(v)]}


def _export(source: Path, output: Path) -> dict[str, object]:
    import tempfile

    import torch

    from medrecon.models import InvertibleDiffusionModel
    from medrecon.models.published import to_published

    if output.is_dir():
        raise UsageError(f"-o {output}: a model folder becomes one file, net_params_50.pkl for example")
    state = to_published(InvertibleDiffusionModel.load(source))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".saving-") as name:
        torch.save(state, Path(name) / output.name)
        (Path(name) / output.name).replace(output)
    return {"output": str(output), "tensors": len(state)}
