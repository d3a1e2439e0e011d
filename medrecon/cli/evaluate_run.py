"""The part of ``medrecon evaluate`` that judges a trained model on measured data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrecon.cli.console import print_json, print_table, progress_bar
from medrecon.cli.runtime import say, set_up_log, set_up_torch

if TYPE_CHECKING:
    from medrecon.cli.runtime import Device
    from medrecon.pipelines.scores import VolumeScore


def evaluate_run(
    folder: Path,
    data: Sequence[Path],
    changes: Sequence[tuple[str, Any]],
    *,
    output: Path | None,
    device: "Device",
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the table of a trained model, and write it as JSON beside a sheet of pictures.

    Parameters
    ----------
    folder
        Of a run or a model, or the name of one that comes with medrecon.
    data, changes
        What to judge it on, see :func:`~medrecon.pipelines.training.judge.judge`.
    output
        Folder for ``evaluation.json`` and ``evaluation.png``; ``evaluation`` in the folder of the run by default,
        ``evaluation-NAME`` for a model that comes with medrecon.
    device, threads, as_json, quiet
        As for every command.
    """
    set_up_log(quiet=quiet)
    from medrecon.io.writers.atomic import atomic_path
    from medrecon.pipelines.scores import groups, summary
    from medrecon.pipelines.training.judge import judge, write_sheet

    with progress_bar(folder.name, quiet=quiet) as progress:
        found = judge(folder, data, changes, device=set_up_torch(device, threads), progress=progress)
    verdict = found.verdict
    usable = [score for score in verdict.scores if not score.error]
    table = {_group(key): (len(scores), summary(scores)) for key, scores in groups(usable).items()}
    everything = summary(usable)
    report = {
        "model": str(folder),
        "epoch": found.details.get("epoch"),
        "data": [str(path) for path in data] or "the held-out volumes of the run",
        **everything,
        "groups": [{"group": name, "volumes": count, **means} for name, (count, means) in table.items()],
        "volumes": [_line(score) for score in verdict.scores],
        "missing": verdict.missing,
    }
    # the model of medrecon's own has no folder of a run to write to
    target = output or (folder / "evaluation" if folder.is_dir() else Path(f"evaluation-{folder.name}"))
    with atomic_path(target / "evaluation.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_sheet(verdict.pictures, target / "evaluation.png")
    for score in verdict.scores:
        if score.error:
            say(f"warning: {score.volume}: {score.error}")
    for name in verdict.missing:
        say(f"warning: {name}: some slices could not be read, so it has no scores")
    if as_json:
        print_json(report)
        return
    rows = [_row(name, count, means) for name, (count, means) in table.items()]
    if len(rows) != 1:
        rows.append(_row("all", len(usable), everything))
    print_table("", ("group", "volumes", "NMSE", "PSNR (dB)", "SSIM"), rows)
    if not quiet:
        say(f"per volume: {target / 'evaluation.json'}; pictures: {target / 'evaluation.png'}")


def _group(key: tuple[str, float | None]) -> str:
    acquisition, acceleration = key
    return " ".join(part for part in (acquisition, f"{acceleration:g}x" if acceleration else "") if part) or "volumes"


def _line(score: "VolumeScore") -> dict[str, Any]:
    group = {"acquisition": score.acquisition, "acceleration": score.acceleration, "slices": score.slices}
    return {"volume": score.volume, **group, **score.scores, **({"error": score.error} if score.error else {})}


def _row(name: str, count: int, means: dict[str, float]) -> list[str]:
    def shown(metric: str, digits: str) -> str:
        if metric not in means:
            return "-"
        spread = f" ± {means[f'{metric}_2std']:{digits}}" if f"{metric}_2std" in means else ""
        return f"{means[metric]:{digits}}{spread}"

    return [name, str(count), shown("nmse", ".4g"), shown("psnr", ".2f"), shown("ssim", ".4f")]
