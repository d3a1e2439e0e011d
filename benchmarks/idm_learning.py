"""Train the ``small`` Invertible Diffusion Model for some minutes on a CPU, and see what it has learned.

From scratch on patches of magnitude images with a simulated phase, measured by one coil at
4x (random lines, 8 % in the centre), and judges it on whole slices of other subjects beside zero-filling
and total variation, the latter with its default λ and with the best of several, chosen on the test itself.

    OMP_NUM_THREADS=1 python benchmarks/idm_learning.py IMAGES.npz --cpu-minutes 40 --json FILE --checkpoint FOLDER

IMAGES.npz holds ``images`` (slices, H, W) and ``subject_slice`` (slices, 2), the subject first; the last
fifth of the subjects is for testing. Without a file, phantoms take their place.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
from timing import save

from medrecon.datasets import TrainingBatch
from medrecon.metrics import psnr, ssim
from medrecon.models import InvertibleDiffusionModel
from medrecon.operators import batch_operators
from medrecon.operators.recipes import load_recipe
from medrecon.reconstructors import make_method
from medrecon.simulation import brain_phantom, smooth_phase

RECIPE = load_recipe("mri-singlecoil-4x")
WHO = "medrecon idm, small"
WEIGHTS = (0.001, 0.002, 0.003, 0.006, 0.01)


def load(path: Path | None):
    """Return training and test images, float32 with the head near 1, split by subject."""
    if path is None:
        phantoms = brain_phantom(40, (128, 128), torch.Generator().manual_seed(0)).float()
        return phantoms[:32], phantoms[32:]
    with np.load(path) as file:
        images = torch.from_numpy(file["images"].astype(np.float32)) / 1000
        subject = torch.from_numpy(file["subject_slice"][:, 0])
    first_test = subject.unique()[-(len(subject.unique()) // 5)]
    return images[subject < first_test], images[subject >= first_test]


def with_phase(image, generator):
    """Return a complex image (1, 1, H, W) with a smooth phase."""
    return torch.polar(image, smooth_phase(tuple(image.shape), generator))[None, None]


def patch(images, size, generator):
    """Return a random patch, turned and mirrored, that is not mostly air."""
    while True:
        draw = [int(torch.randint(high, (1,), generator=generator)) for high in (len(images), 10**6, 10**6, 4, 2)]
        image = images[draw[0]]
        top, left = draw[1] % (image.shape[0] - size + 1), draw[2] % (image.shape[1] - size + 1)
        piece = torch.rot90(image[top : top + size, left : left + size], draw[3])
        if piece.mean() > 0.1:
            return piece.flip(0) if draw[4] else piece


def row(work, who, metric, value):
    return {"work": work, "who": who, "metric": metric, "value": float(value)}


def training_batch(images, count, size, generator):
    """Return patches, each with a phase and a mask of its own."""
    target = torch.cat([with_phase(patch(images, size, generator), generator) for _ in range(count)])
    operator = batch_operators([RECIPE.draw((size, size), generator) for _ in range(count)])
    return TrainingBatch(operator(target), operator, target)


def test_cases(images, count):
    """Return complex images of whole slices and their operators, the same in every run."""
    generator = torch.Generator().manual_seed(1)
    chosen = images[torch.linspace(0, len(images) - 1, count).long()]
    return [(with_phase(image, generator), RECIPE.draw(tuple(image.shape), generator)) for image in chosen]


def judge(reconstruct, cases):
    """Return mean PSNR and SSIM of the magnitudes, data range max of each slice."""
    scores = []
    for image, operator in cases:
        with torch.no_grad():
            found = reconstruct(operator(image), operator)
        truth, found = image.abs()[0].numpy(), found.abs()[0].numpy()
        scores.append((psnr(truth, found), ssim(truth, found)))
    return np.mean(scores, axis=0)


def train(model, images, cases, options):
    """Train for some minutes; return the averaged model and the loss curve."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    average, rows, recent = copy.deepcopy(model), [], []
    budget, start, step = options.cpu_minutes * 60, time.process_time(), 0
    while (seconds := time.process_time() - start) < budget:
        rate = 2e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * seconds / budget)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model.training_loss(training_batch(images, options.batch, options.patch, generator))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise SystemExit(f"the gradient is {norm} at step {step}")
        optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 10))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        recent.append((float(loss.detach()), float(norm)))
        if step % 50 == 0:
            mean, largest = np.mean([value for value, _ in recent]), max(value for _, value in recent)
            print(f"step {step:5} {seconds:6.0f} s  loss {mean:.4f}  largest gradient norm {largest:.2f}", flush=True)
            rows.append(row("training", WHO, f"loss, steps {step - 49} to {step}", mean))
            recent = []
        if step % 500 == 0:
            print(f"    on 4 test slices: {judge(average, cases[:: max(1, len(cases) // 4)])[0]:.2f} dB", flush=True)
    rows += [row("training", WHO, "steps", step), row("training", WHO, "seconds", time.process_time() - start)]
    return average, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--cpu-minutes", type=float, default=40, help="40 are 20 on two cores")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--slices", type=int, default=24, help="test slices")
    parser.add_argument("--quick", action="store_true", help="ten seconds, two slices")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="where the trained model is saved")
    options = parser.parse_args()
    if options.quick:
        options.cpu_minutes, options.slices = 1 / 6, 2
    torch.manual_seed(0)
    training, testing = load(options.images)
    cases = test_cases(testing, options.slices)

    model = InvertibleDiffusionModel.from_preset("small", image_channels=2)
    model.memory = "none"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {len(training)} training slices, {torch.get_num_threads()} threads", flush=True)
    model, rows = train(model, training, cases, options)
    if options.checkpoint:
        model.save(options.checkpoint)
    methods = {"zero-filled": make_method("adjoint"), "medrecon tv, default λ": make_method("tv"), WHO: model}
    methods |= {f"medrecon tv, λ = {weight}": make_method("tv", {"regularization": weight}) for weight in WEIGHTS}
    scores = {who: judge(method, cases) for who, method in methods.items()}
    best = max((who for who in scores if "λ =" in who), key=lambda who: scores[who][0])
    for who in ("zero-filled", "medrecon tv, default λ", best, WHO):
        for metric, value in zip(("PSNR dB", "SSIM"), scores[who], strict=True):
            rows.append(row(f"{len(cases)} slices of other subjects", who, metric, value))
        print(f"{who:24} {scores[who][0]:6.2f} dB   SSIM {scores[who][1]:.4f}")
    mixes = model.mixes()
    print(f"α {model.alpha().tolist()}, v {float(mixes.min()):.3f} to {float(mixes.max()):.3f}")
    print(f"λ/(1+λ) {model.trust().tolist()}")
    save(rows, options.json)


if __name__ == "__main__":
    main()
