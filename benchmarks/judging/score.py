"""Scores of all methods on one piece of work: means with their uncertainty, a table, rows for the JSON file."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from medrecon.metrics import evaluate_volume
from medrecon.models.network_calls import each_network_call
from medrecon.operators import LinearOperator
from medrecon.reconstructors import Reconstructor

from .case import Case, Plane, Work, plane_of
from .methods import BASELINE, Method, Tuner

Rows = list[dict[str, Any]]
GAIN = "psnr gain over tv"
OBJECT = "psnr in the object"
CALLS = "network calls"
HIDDEN = "residual, hidden samples"
_FEWEST_SUBJECTS = 3
_AIR = 0.02


class Mean(NamedTuple):
    """A mean, half of its 95 % confidence interval (None for one value), and of what it is the mean."""

    value: float
    half: float | None
    over: str


@dataclass(frozen=True)
class Outcome:
    """What came of a piece of work: rows, images and scores by method and case."""

    rows: Rows
    images: Mapping[str, Sequence[Plane]]
    scores: Mapping[str, Sequence[Mapping[str, float]]]


def row(work: str, who: str, metric: str, value: float) -> dict[str, Any]:
    """Return one row of the JSON file."""
    return {"work": work, "who": who, "metric": metric, "value": float(value)}


def mean(values: Sequence[float], subjects: Sequence[str]) -> Mean:
    """Return the mean with Student's interval over subjects, slices of one being no independent witnesses.

    With fewer than three subjects the interval is over slices, and so too narrow; ``over`` tells which it is.
    """
    names = sorted(set(subjects))
    if len(names) >= _FEWEST_SUBJECTS:
        owners = np.array(subjects)
        values = [float(np.mean(np.array(values)[owners == name])) for name in names]
        over = f"{len(names)} subjects"
    else:
        over = f"{len(values)} slices" if len(values) > 1 else "one slice"
    if len(values) < 2:
        return Mean(float(values[0]), None, over)
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return Mean(float(np.mean(values)), float(half), over)


def mean_rows(work: str, who: str, metric: str, found: Mean) -> Rows:
    """Return the rows of a mean."""
    rows = [row(work, who, metric, found.value)]
    return rows if found.half is None else [*rows, row(work, who, f"{metric} ±95 %", found.half)]


def reconstruct_case(reconstruct: Reconstructor, case: Case) -> tuple[Plane, dict[str, float]]:
    """Return the image and its scores; seconds are processor time."""
    calls: list[None] = []
    with each_network_call(reconstruct, lambda: calls.append(None)):
        start = time.process_time()
        image = reconstruct(case.measurements, case.operator, generator=torch.Generator().manual_seed(0))
        seconds = time.process_time() - start
    scores = {"residual": _residual(image, case.measurements, case.operator), "seconds": seconds}
    if case.hidden is not None:
        scores[HIDDEN] = _residual(image, *case.hidden)
    plane = plane_of(image)
    if case.truth is not None:
        quality = evaluate_volume(case.truth[None].astype(np.float64), plane[None])
        scores = {**quality, OBJECT: _object_psnr(case.truth, plane), **scores}
    return plane, {**scores, CALLS: len(calls)} if calls else scores


def run_work(work: Work, methods: Mapping[str, Method], tuner: Tuner) -> Outcome:
    """Reconstruct everything by every method; print the table."""
    rows: Rows = [row(work.name, part.who, "psnr", part.psnr) for part in work.published]
    images: dict[str, list[Plane]] = {}
    scores: dict[str, list[dict[str, float]]] = {}
    weights: dict[str, float | None] = {}
    for who, method in methods.items():
        weights[who] = tuner.weight(work.tuned_as, who, method, work.tuning)
        reconstruct = method.build(weights[who])
        found = [reconstruct_case(reconstruct, case) for case in work.cases]
        images[who], scores[who] = [image for image, _ in found], [score for _, score in found]
    subjects = [case.subject for case in work.cases]
    table = {}
    for who in methods:
        columns = {key: [score[key] for score in scores[who]] for key in scores[who][0]}
        if methods[who].learned and BASELINE in methods and "psnr" in columns:
            columns[GAIN] = [score["psnr"] - other["psnr"] for score, other in paired(scores, who)]
        table[who] = {key: mean(values, subjects) for key, values in columns.items()}
        if (weight := weights[who]) is not None:
            rows.append(row(work.name, who, "lambda", weight))
        for key, found_mean in table[who].items():
            rows += mean_rows(work.name, who, key, found_mean)
        if GAIN in columns:
            rows.append(row(work.name, who, f"{GAIN}, lowest", min(columns[GAIN])))
    _print(work, methods, table, weights)
    return Outcome(rows, images, scores)


def _residual(image: Tensor, y: Tensor, operator: LinearOperator) -> float:
    return float(torch.linalg.vector_norm(operator(image) - y) / torch.linalg.vector_norm(y))


def _object_psnr(truth: Plane, image: Plane) -> float:
    """Return the PSNR over the pixels that are not air, which fills most of some slices and is easy."""
    inside = truth > _AIR * truth.max()
    error = float(np.mean((truth[inside] - image[inside]) ** 2, dtype=np.float64))
    return 10 * float(np.log10(float(truth.max()) ** 2 / error))


def paired(
    scores: Mapping[str, Sequence[Mapping[str, float]]], who: str
) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    """Return the scores of a method and of the baseline for every slice."""
    return list(zip(scores[who], scores[BASELINE], strict=True))


def _print(
    work: Work,
    methods: Mapping[str, Method],
    table: Mapping[str, Mapping[str, Mean]],
    weights: Mapping[str, float | None],
) -> None:
    first = next(iter(table.values()))
    over = next(iter(first.values())).over
    print(f"\n{work.name}: {len(work.cases)} slices, intervals over {over}", flush=True)
    head = f"  {'':26} {'λ':>7} {'PSNR (dB)':>14} {'over TV':>14} {'in object':>14} {'SSIM':>15}"
    print(f"{head} {'NMSE':>9} {'residual':>9} {'hidden':>7} {'s/slice':>8} {'calls':>6}")
    for who, means in table.items():
        weight = weights[who]
        ends = weight in (methods[who].grid[:1] + methods[who].grid[-1:])
        cells = [
            "" if weight is None else f"{weight:.2g}{'!' if ends else ''}",
            _cell(means.get("psnr"), 2),
            _cell(means.get(GAIN), 2),
            _cell(means.get(OBJECT), 2),
            _cell(means.get("ssim"), 4),
        ]
        nmse = means.get("nmse")
        calls = f"{means[CALLS].value:.0f}" if CALLS in means else ""
        hidden = f"{means[HIDDEN].value:.4f}" if HIDDEN in means else ""
        print(
            f"  {who:26} {cells[0]:>7} {cells[1]:>14} {cells[2]:>14} {cells[3]:>14} {cells[4]:>15} "
            f"{'' if nmse is None else f'{nmse.value:.5f}':>9} {means['residual'].value:9.4f} {hidden:>7} "
            f"{means['seconds'].value:8.2f} {calls:>6}",
            flush=True,
        )
    for part in work.published:
        print(f"  {part.who:26} {'':>7} {part.psnr:7.2f}          for orientation: another test set, without noise")


def _cell(found: Mean | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found.value:.{digits}f}" + ("" if found.half is None else f" ± {found.half:.{digits}f}")
