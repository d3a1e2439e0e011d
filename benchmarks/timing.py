"""Fair timing on a shared machine: candidates take turns, medians count, and only ratios are quoted."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def interleaved(candidates: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each candidate; every round runs all of them once, in turn."""
    for run in candidates.values():
        run()  # first calls build plans and caches
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(work: str, seconds: Mapping[str, float], baseline: str) -> list[dict[str, Any]]:
    """Print one table and return its rows for the JSON file."""
    print(f"\n{work}")
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"  {name:36} {1e3 * value:9.1f} ms   {value / seconds[baseline]:6.2f}x {baseline}")
    return [{"work": work, "who": name, "metric": "seconds", "value": value} for name, value in seconds.items()]


def save(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Write the rows, where a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n")
