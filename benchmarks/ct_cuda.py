"""CT projectors on a CUDA device: ours against ASTRA's, both on tensors that already are there.

ASTRA's ``projector.direct_FP`` and ``direct_BP`` take one slice a call, through DLPack; a batch is a loop. Its CUDA
back-projector is pixel-driven and no transpose of its projector, so "backward" there is another sum.
"seconds" is the clock between two synchronisations, which counts everything for everybody; "device
seconds" is what CUDA events on torch's stream see, which need not include a peer's streams.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers import peer
from timing import report, save

from medrecon.operators import FanBeam2D, ParallelBeam2D

Calls = tuple[Callable[[], Any], Callable[[], Any]]


@dataclass(frozen=True)
class Work:
    """One geometry and batch; a fan has its source and detector at 2 N from the axis and bins of 2 pixels."""

    beam: str
    size: int
    views: int
    batch: int

    @property
    def bins(self) -> int:
        """Bins: the width of the image, or that of a fan around it."""
        return self.size if self.beam == "parallel" else self.size * 25 // 16

    @property
    def angles(self) -> torch.Tensor:
        """Radians."""
        turn = math.pi if self.beam == "parallel" else 2 * math.pi
        return torch.arange(self.views, dtype=torch.float64) * turn / self.views

    @property
    def name(self) -> str:
        """Words for the table."""
        return f"{self.beam} {self.size}² x {self.views} views, batch {self.batch}"


def with_medrecon(work: Work, x: torch.Tensor, y: torch.Tensor) -> Calls:
    """Ours, through the public operator."""
    shape, orbit = (work.size, work.size), 2.0 * work.size
    operator = (
        ParallelBeam2D(shape, work.angles, detector_count=work.bins)
        if work.beam == "parallel"
        else FanBeam2D(
            shape,
            work.angles,
            source_origin=orbit,
            source_detector=2 * orbit,
            detector_count=work.bins,
            detector_pitch=2.0,
        )
    ).to(x.device)
    return lambda: operator(x), lambda: operator.adjoint(y)


def with_astra(work: Work, x: torch.Tensor, y: torch.Tensor) -> Calls | None:
    """Return ASTRA's CUDA projector, slice by slice, or None where it is not installed."""
    astra = peer("astra")
    if astra is None or not astra.use_cuda():
        return None
    volume, orbit = astra.create_vol_geom(work.size, work.size), 2.0 * work.size
    geometry = (
        astra.create_proj_geom("parallel", 1.0, work.bins, work.angles.numpy())
        if work.beam == "parallel"
        else astra.create_proj_geom("fanflat", 2.0, work.bins, work.angles.numpy(), orbit, orbit)
    )
    projector = astra.create_projector("cuda", geometry, volume)
    x_out, y_out = torch.empty_like(x), torch.empty_like(y)

    def forward() -> None:
        for image, sinogram in zip(x[:, 0], y_out[:, 0], strict=True):
            astra.projector.direct_FP(projector, image, out=sinogram)

    def backward() -> None:
        for sinogram, image in zip(y[:, 0], x_out[:, 0], strict=True):
            astra.projector.direct_BP(projector, sinogram, out=image)

    return forward, backward


BUILDERS: dict[str, Callable[[Work, torch.Tensor, torch.Tensor], Calls | None]] = {
    "medrecon": with_medrecon,
    "ASTRA CUDA": with_astra,
}


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return medians of the clock and of CUDA events, in seconds a call; candidates take turns."""
    clock: dict[str, list[float]] = {who: [] for who in calls}
    events: dict[str, list[float]] = {who: [] for who in calls}
    for call in calls.values():
        for _ in range(3):
            call()  # compiles
    for _ in range(repeats):
        for who, call in calls.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin = time.perf_counter()
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            clock[who].append(time.perf_counter() - begin)
            events[who].append(start.elapsed_time(stop) / 1e3)
    return tuple({who: statistics.median(values) for who, values in kind.items()} for kind in (clock, events))


def main() -> None:
    """Run all and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small problem, to see that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a CUDA device; nothing was measured and nothing written")
        return
    works = [
        Work(beam, 512, views, batch) for beam in ("parallel", "fan") for views in (720, 64) for batch in (1, 8, 32)
    ]
    if options.quick:
        works = [Work("parallel", 64, 20, 2), Work("fan", 64, 20, 2)]
    rows: list[dict[str, Any]] = []
    print(torch.cuda.get_device_name())
    for work in works:
        generator = torch.Generator("cuda").manual_seed(0)
        x = torch.randn(work.batch, 1, work.size, work.size, device="cuda", generator=generator)
        y = torch.randn(work.batch, 1, work.views, work.bins, device="cuda", generator=generator)
        found = {who: built for who, build in BUILDERS.items() if (built := build(work, x, y)) is not None}
        with torch.no_grad():
            for index, what in enumerate(("forward", "backward")):
                calls = {who: pair[index] for who, pair in found.items()}
                clock, events = measure(calls, 5 if options.quick else 30)
                rows += report(f"{what}, {work.name}", clock, "medrecon")
                rows += [
                    {"work": f"{what}, {work.name}", "who": who, "metric": "device seconds", "value": value}
                    for who, value in events.items()
                ]
    save(rows, options.json)


if __name__ == "__main__":
    main()
