"""``medrecon train``: from a recipe and data to a trained model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from medrecon.cli.console import print_json, print_line, print_table, progress_bar
from medrecon.cli.options import Changes, Device, Json, Quiet, Threads, parse_changes
from medrecon.cli.runtime import say, set_up_log, set_up_torch
from medrecon.errors import MedreconError, UsageError

_INSTALL = "training needs packages that are not installed ({name}); install them with: pip install 'medrecon[train]'"


def train(
    recipe: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="Name of a recipe, or its YAML file.")
    ] = None,
    /,
    *changes: Changes,
    data: Annotated[
        list[Path] | None,
        Parameter(negative="", consume_multiple=True, help="Files or folders to train on (data.train)."),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        Parameter(
            negative="", consume_multiple=True, help="Files or folders to validate on; by default a tenth is held out."
        ),
    ] = None,
    output: Annotated[Path | None, Parameter(alias="-o", help="Folder of the run; a new one.")] = None,
    resume: Annotated[Path | None, Parameter(help="Folder of a run to go on with, instead of a recipe.")] = None,
    keys: Annotated[
        bool, Parameter(negative="", help="List the fields of recipes with their meaning, and stop.")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Show the whole recipe and what would be read.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a reconstructor: fastMRI volumes, images of any kind with simulated measurements, sinograms, phantoms.

    The folder of the run gets recipe, log, TensorBoard curves and pictures, the last checkpoint and the best model,
    which 'medrecon reconstruct --checkpoint' and 'medrecon evaluate' take. SIGTERM and Ctrl-C end the run with a
    checkpoint from which --resume continues exactly. For several processes start it with torchrun.

    Examples: medrecon train mri-idm --data multicoil_train --output runs/a;
    medrecon train my.yaml --data images --output runs/b --training.epochs 5 --model.method unet;
    medrecon train --resume runs/a;
    torchrun --nproc_per_node=4 -m medrecon train mri-idm --data multicoil_train --output runs/a
    """
    if recipe is not None and recipe.startswith("-"):  # a field, without a recipe before it
        changes = (recipe, *changes)
        recipe = None
    if keys:
        for title, rows in _fields():
            print_table(title, ["field", "default", ""], rows)
        return 0
    set_up_log(quiet=quiet or _rank() > 0)
    try:
        from medrecon.pipelines.training.recipe import load_training_recipe
        from medrecon.pipelines.training.run import train as run
        from medrecon.pipelines.training.run_folder import RunFolder
    except ModuleNotFoundError as error:
        raise MedreconError(_INSTALL.format(name=error.name)) from error
    wanted = parse_changes(changes)
    for key, paths in (("data.train", data), ("data.validation", validation)):
        if paths:
            wanted.append((key, [str(path) for path in paths]))
    if resume is not None:
        if recipe is not None or output is not None:
            raise UsageError("--resume takes its recipe and its folder from the run; leave out RECIPE and --output")
        folder, card = resume, RunFolder(resume).recipe(wanted)
    else:
        if recipe is None:
            raise UsageError("a recipe is needed, such as mri-idm ('medrecon train --keys' lists its fields)")
        card = load_training_recipe(recipe, wanted)
        folder = output or Path("runs") / card.name
    if dry_run:
        print_line(card.to_yaml().rstrip())
        return 0
    torch_device = set_up_torch(device, threads)
    with progress_bar("looking at files", quiet=quiet or _rank() > 0) as progress:
        outcome = run(card, folder, resume=resume is not None, device=torch_device, quiet=quiet, progress=progress)
    if _rank() > 0:
        return 0 if outcome.finished else 130
    metric = card.validation.metric
    if not outcome.finished:
        say(f"interrupted after iteration {outcome.iterations}; go on with: medrecon train --resume {folder}")
        return 130
    if as_json:
        print_json({"folder": str(folder), "metric": metric, **outcome._asdict()})
    else:
        say(f"{outcome.epochs} epochs; best {metric} {outcome.best:.4g} after epoch {outcome.best_epoch}")
        print_line(str(folder / "model"))
    return 0


def _rank() -> int:
    import os

    return int(os.environ.get("RANK", "0"))


def _fields() -> list[tuple[str, list[list[str]]]]:
    """Return tables of all fields, their defaults and their meaning."""
    from pydantic import BaseModel

    from medrecon.pipelines.training import recipe

    parts: dict[str, tuple[type[BaseModel], str]] = {
        "the recipe": (recipe.TrainingRecipe, ""),
        "model": (recipe.ModelPart, "model."),
        "training": (recipe.TrainingPart, "training."),
        "validation": (recipe.ValidationPart, "validation."),
        **{
            f"data, kind {kind}": (part, "data.")
            for kind, part in (
                ("fastmri", recipe.FastMRIData),
                ("images", recipe.ImageData),
                ("phantoms", recipe.PhantomData),
                ("scans", recipe.ScanData),
            )
        },
    }
    tables = []
    for title, (part, prefix) in parts.items():
        rows = [
            [prefix + name, "needed" if field.is_required() else str(field.get_default()), field.description or ""]
            for name, field in part.model_fields.items()
            if name not in ("kind", "model", "training", "validation") or prefix
        ]
        tables.append((title, [row for row in rows if row[0] not in ("data", "data.kind")]))
    return tables
