"""Memory and time of a training step of the Invertible Diffusion Model, in every memory mode.

    OMP_NUM_THREADS=1 python benchmarks/idm.py [--quick] [--json FILE]
    python benchmarks/idm.py --cuda [--json FILE]

Memory is the exact peak of live tensor bytes of the published architecture (T = 3, 256², batch 1, fp32),
counted on fake tensors: new gradients included, parameters and optimizer state not; 1 MB = 2^20 bytes.
Time is CPU seconds of the same architecture at a tenth of its channels, all modes in turn.
With ``--cuda`` both are measured on the device: allocator peak, images a second, inference latency.
"""

import argparse
import contextlib
import statistics
import time
from pathlib import Path

import torch
from timing import interleaved, report, save
from torch._subclasses.fake_tensor import FakeTensorMode

from medrecon.datasets import TrainingBatch
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.memory import Identity, LivePeak
from medrecon.operators import BlockCompressedSensing

MODES = ("none", "checkpoint", "min", "reversible")
MB = 2**20


def counted(steps, memory, size=256):
    """Return the MB that the forward pass keeps, and the peak with the backward pass."""
    with FakeTensorMode():
        model = InvertibleDiffusionModel.from_preset("sd15", steps=steps)
        y = torch.empty(1, 1, size, size)
        with LivePeak(model.parameters()) as live:
            loss = model.sample(y, Identity((1, size, size)), y.clone(), memory).abs().mean()
            kept = live.live
            loss.backward()
    return {"kept": kept / MB, "peak": live.peak / MB}


def row(work, mode, metric, value):
    return {"work": work, "who": f"medrecon {mode}", "metric": metric, "value": value}


def memory_rows(*, quick):
    rows = []
    print("\nlive tensor MB of a training step, sd15, 256², batch 1, fp32, gradients (440 MB) included")
    for steps in (1,) if quick else (1, 2, 3, 6, 12):
        for memory in MODES if steps <= 3 else MODES[2:]:
            found = counted(steps, memory)
            print(f"  T = {steps:2}  {memory:11} kept {found['kept']:8.0f}   peak {found['peak']:8.0f}", flush=True)
            work = f"sd15, 256², batch 1, T = {steps}"
            rows += [row(f"{work}, {what}", memory, "bytes", MB * value) for what, value in found.items()]
    return rows


def time_rows(*, quick):
    rows = []
    for steps in (1,) if quick else (2, 3):
        torch.manual_seed(0)
        model = InvertibleDiffusionModel(steps=steps, widths=[32, 64])
        operator = BlockCompressedSensing((1, 64, 64), 0.1)
        target = torch.rand(2, 1, 64, 64)
        batch = TrainingBatch(operator(target), operator, target)

        def step(memory, model=model, batch=batch):
            model.memory = memory
            model.zero_grad()
            model.training_loss(batch).backward()

        seconds = interleaved(
            {f"medrecon {memory}": lambda memory=memory: step(memory) for memory in MODES}, repeats=1 if quick else 9
        )
        rows += report(
            f"step of the published architecture, 32/64 channels, 64², batch 2, T = {steps}",
            seconds,
            "medrecon none",
        )
    return rows


def cuda_rows(*, quick):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device("cuda")
    name = torch.cuda.get_device_name()
    rows = []
    for compiled in (False, True):
        model = InvertibleDiffusionModel.from_preset("sd15").to(device)
        if compiled:
            model.compile_repeated_blocks()
        label = "compiled" if compiled else "eager"
        for batch in (1, 4) if quick else (1, 4, 8):
            for memory in MODES:
                rows += training_on_cuda(model, memory, batch, f"{name}, {label}, 256², bf16, batch {batch}")
        for size in (256, 320):
            rows += latency_on_cuda(model, size, f"{name}, {label}, {size}², inference")
    return rows


def training_on_cuda(model, memory, batch, work):
    operator = BlockCompressedSensing((1, 256, 256), 0.1).to("cuda")
    target = torch.rand(batch, 1, 256, 256, device="cuda")
    data = TrainingBatch(operator(target), operator, target)
    model.memory = memory

    def step():
        model.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model.training_loss(data)
        loss.backward()

    with contextlib.suppress(torch.cuda.OutOfMemoryError):
        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = median_seconds(step, repeats=5)
        peak = torch.cuda.max_memory_allocated() - before
        print(f"  {work:60} {memory:11} {batch / seconds:7.2f} images/s   {peak / MB:8.0f} MB", flush=True)
        return [
            row(work, memory, "images per second", batch / seconds),
            row(f"{work}, peak", memory, "bytes", peak),
        ]
    torch.cuda.empty_cache()
    print(f"  {work:60} {memory:11} does not fit", flush=True)
    return []


def latency_on_cuda(model, size, work):
    operator = BlockCompressedSensing((1, size, size), 0.1).to("cuda")
    y = operator(torch.rand(1, 1, size, size, device="cuda"))

    def reconstruct():
        with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
            model(y, operator)

    reconstruct()
    seconds = median_seconds(reconstruct, repeats=10)
    print(f"  {work:60} {1e3 * seconds:7.1f} ms", flush=True)
    return [row(work, "idm, sd15", "seconds", seconds)]


def median_seconds(run, *, repeats):
    run()
    values = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        values.append(time.perf_counter() - start)
    return statistics.median(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="T = 1, one repeat")
    parser.add_argument("--cuda", action="store_true", help="measure on the GPU instead")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.cuda and not torch.cuda.is_available():
        raise SystemExit("--cuda: no CUDA device")
    if options.cuda:
        save(cuda_rows(quick=options.quick), options.json)
        return
    save(memory_rows(quick=options.quick) + time_rows(quick=options.quick), options.json)


if __name__ == "__main__":
    main()
