"""Seconds a slice from fastMRI volumes through a data loader, and how long training waits for them.

    OMP_NUM_THREADS=1 python benchmarks/data_loading.py [--quick] [--json FILE]

Volumes of 15 coils, 640 x 372, complex64, in the layout of fastMRI, stored by slices and contiguously, with
the page cache warm. Wall time, for workers are other processes; all candidates in turn, medians of passes over
all slices. ``h5py`` reads one slice and does nothing else: no loader can be faster. MONAI's reader reads a
whole volume, here divided by its slices. The training step is that of the ``small`` Invertible Diffusion
Model, image_channels=2, one slice a step; what waits is the loop that asks the loader for the next one.
"""

import argparse
import importlib
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import torch
from timing import report, save
from torch.utils.data import DataLoader

from medrecon.datasets import FastMRIDataset, collate, index_folder
from medrecon.io import write_fastmri
from medrecon.models import InvertibleDiffusionModel
from medrecon.operators.samplers import make_sampler

WORKERS = (0, 1, 2)
BARE = "h5py, the slice alone"


def write_volumes(folder, shape, slices, *, chunked):
    """Write two volumes of noise: the values do not matter here."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    height = shape[1] // 2
    for name in ("a.h5", "b.h5"):
        kspace = torch.randn(slices, *shape, dtype=torch.complex64, generator=generator)
        write_fastmri(folder / name, kspace, reference=torch.rand(slices, height, height, generator=generator))
        if not chunked:
            with h5py.File(folder / name, "r+") as file:
                del file["kspace"]
                file.create_dataset("kspace", data=kspace.numpy(), chunks=None)
    return sorted(folder.glob("*.h5"))


def one_thread(_worker):
    torch.set_num_threads(1)


def loader(folder, workers, **options):
    mask = make_sampler("random", {"acceleration": 4, "center_fraction": 0.08})
    volumes = index_folder(folder, cache=folder.parent / "cache").volumes
    data = FastMRIDataset(volumes, mask, training=True, **options)
    return DataLoader(
        data,
        batch_size=1,
        shuffle=True,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=one_thread if workers else None,
    )


def bare_pass(files, slices):
    for path in files:
        for number in range(slices):
            with h5py.File(path, "r") as file:
                file["kspace"][number]


def monai_pass(files):
    """Return a pass of MONAI's reader, None where MONAI is not installed."""
    try:
        module = importlib.import_module("monai.apps.reconstruction.fastmri_reader")
    except ImportError as error:
        print(f"monai is left out: {error}")
        return None

    def run():
        reader = module.FastMRIReader()
        for path in files:
            reader.get_data(reader.read(path))

    return run


def wall(candidates, *, repeats):
    """Return the median wall seconds of each candidate; every round runs all of them once, in turn."""
    for run in candidates.values():
        run()  # starts workers, warms the page cache
    seconds = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def reading_rows(folder, shape, slices, layout, *, repeats):
    files = write_volumes(folder, shape, slices, chunked=layout == "chunked by slice")
    candidates = {BARE: lambda: bare_pass(files, slices)}
    peer = monai_pass(files)
    if peer is not None:
        candidates["MONAI FastMRIReader, whole volume"] = peer
    for workers in WORKERS:
        batches = loader(folder, workers)
        candidates[f"medrecon FastMRIDataset, {workers} workers"] = lambda batches=batches: list(map(len, batches))
    count = slices * len(files)
    seconds = {name: value / count for name, value in wall(candidates, repeats=repeats).items()}
    work = f"a slice of {' x '.join(map(str, shape))}, {layout}"
    rows = report(work, seconds, BARE)
    return rows + [{**row, "metric": "slices per second", "value": 1 / row["value"]} for row in rows]


def training_pass(batches, model, optimizer):
    """Return for every step but the first, which fills the queue, the seconds of waiting and of training."""
    found = []
    source = iter(batches)
    while True:
        start = time.perf_counter()
        batch = next(source, None)
        if batch is None:
            return found[1:]
        ready = time.perf_counter()
        optimizer.zero_grad()
        model.training_loss(batch).backward()
        optimizer.step()
        found.append((ready - start, time.perf_counter() - ready))


def waiting_rows(folder, patch, share, *, repeats):
    torch.manual_seed(0)
    model = InvertibleDiffusionModel.from_preset("small", image_channels=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loaders = {workers: loader(folder, workers, readout_patch=patch, slices=(0.0, share)) for workers in WORKERS}
    found = {workers: [] for workers in WORKERS}
    for round_ in range(repeats + 1):  # the first starts workers
        for workers, batches in loaders.items():
            steps = training_pass(batches, model, optimizer)
            found[workers] += steps if round_ else []
    rows, columns = next(iter(loaders[0])).target.shape[-2:]
    work = f"training step of `small`, {rows} x {columns}"
    print(f"\n{work}")
    result = []
    for workers, steps in found.items():
        waited, trained = (statistics.median(part) for part in zip(*steps, strict=True))
        who, waiting = f"medrecon, {workers} workers", waited / (waited + trained)
        print(f"  {who:36} {1e3 * trained:9.1f} ms, waits {1e3 * waited:7.1f} ms: {100 * waiting:5.1f} %", flush=True)
        result += [
            {"work": work, "who": who, "metric": metric, "value": value}
            for metric, value in (("seconds", trained), ("seconds waiting", waited), ("share waiting", waiting))
        ]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 coils of 160 x 92, two passes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape, slices, repeats = ((4, 160, 92), 3, 2) if options.quick else ((15, 640, 372), 6, 7)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for layout in ("chunked by slice", "contiguous"):
            rows += reading_rows(Path(place) / layout.split()[0], shape, slices, layout, repeats=repeats)
        chunked = Path(place) / "chunked"
        if options.quick:
            rows += waiting_rows(chunked, 24, 1.0, repeats=1)
        else:
            rows += waiting_rows(chunked, 96, 0.5, repeats=2)
            rows += waiting_rows(chunked, None, 0.5, repeats=1)
    save(rows, options.json)


if __name__ == "__main__":
    main()
