"""Choose an architecture: train variants of a recipe for the same processor time, and judge them on the same slices.

    OMP_NUM_THREADS=1 python benchmarks/ablation.py mri-general --data FOLDER ... --cpu-minutes 6 --json FILE
        [--variants NAME ...] [--slices N] [--quick]

All variants see the same slices in the same order with the same masks, coils and noise, as long as their time lasts:
the clock counts what model and optimizer take, not the simulation of the data, which is the same for all. The rate
rises over a hundred batches and falls to 2 % with the time that has passed. Judged are whole slices of subjects that
the recipe holds out, by averaged weights and by the last ones. A variant changes the recipe: a name of ``VARIANTS``,
written for the models that ship, or any keys with other values, "model.parameters.steps=2; training.loss=l1".
``--quick`` takes phantoms.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from timing import save

from medrecon.datasets import TrainingBatch
from medrecon.datasets.batch import centre_magnitude
from medrecon.metrics import psnr, ssim
from medrecon.models import ReconstructionModel
from medrecon.models.presets import falling_noise
from medrecon.pipelines.training.average import WeightAverage
from medrecon.pipelines.training.data import Data, data_loader, load_data
from medrecon.pipelines.training.optimization import build_optimizer, rate_factor
from medrecon.pipelines.training.recipe import TrainingRecipe, changed, load_training_recipe
from medrecon.pipelines.training.run import make_model
from medrecon.pipelines.training.steps import TrainingLoss

FIELD = "model.parameters."
FALLING = [(FIELD + "alphas", falling_noise(3)), (FIELD + "zero_init", False)]
NO_IDM = [("model.parameters", {}), ("model.memory", None)]
VARIANTS: dict[str, list[tuple[str, Any]]] = {
    "as it is": [],
    "another seed": [("seed", 1)],
    "one set of weights for all steps": [(FIELD + "shared", True)],
    "1 step": [(FIELD + "steps", 1)],
    "5 steps": [(FIELD + "steps", 5)],
    "two scales, 24/48": [(FIELD + "widths", [24, 48]), (FIELD + "heads", [0, 0])],
    "wider, 32/64/128": [(FIELD + "widths", [32, 64, 128])],
    "two blocks a scale": [(FIELD + "layers", 2)],
    "attention at the last scale": [(FIELD + "heads", [0, 0, 4])],
    "injectors in all layers": [(FIELD + "injectors", "all")],
    "group-normalised blocks": [(FIELD + "block", "resnet")],
    "no last data consistency": [(FIELD + "final_consistency", False)],
    "from least squares": [(FIELD + "warm_start", "least-squares")],
    "data trusted wholly": [(FIELD + "data_consistency", "projection")],
    "noise that falls": FALLING,
    "noise that falls, betas .9, .999": [*FALLING, ("training.betas", [0.9, 0.999])],
    "L1 loss": [("training.loss", "l1")],
    "twice the learning rate": [("training.learning_rate", 2e-3)],
    "variational network": [("model.method", "varnet"), *NO_IDM],
    "plain U-Net": [("model.method", "unet"), *NO_IDM],
}
QUICK = {
    "data": {"kind": "phantoms", "count": 8, "size": [48, 48], "operator": "mri-singlecoil-4x"},
    "model": {"method": "idm", "preset": "tiny"},
    "training": {"workers": 0, "loss": "relative-l1"},
}


def endless(data: Data, recipe: TrainingRecipe) -> Iterator[TrainingBatch]:
    """Yield the batches of one epoch after the other."""
    loader = data_loader(data, recipe, training=True)
    epoch = 0
    while True:
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        data.set_epoch(epoch)
        yield from (batch for batch in loader if batch is not None)
        epoch += 1


def train(recipe: TrainingRecipe, data: Data, seconds: float) -> tuple[ReconstructionModel, ReconstructionModel, int]:
    """Train for some processor time; return the averaged model, the last one, and how many batches that were."""
    model = make_model(recipe, data)
    part = recipe.training
    loss_of, optimizer = TrainingLoss(model, part.loss), build_optimizer(model.parameters(), part)
    average = WeightAverage(model, part.ema or 0.0)
    used, count = 0.0, 0
    for batch in endless(data, recipe):
        start = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = part.learning_rate * rate_factor(part, count, used / seconds)
        (loss_of(batch) / part.accumulate).backward()
        count += 1
        if count % part.accumulate == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), part.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad()
            average.update(model)
        used += time.process_time() - start
        if used >= seconds:
            break
    return average.model, model.eval(), count


def judge(model: ReconstructionModel, cases: Sequence[TrainingBatch]) -> dict[str, float]:
    """Return mean PSNR and SSIM of the magnitudes, data range the maximum of each slice, and seconds a slice."""
    scores, start = [], time.process_time()
    for batch in cases:
        with torch.no_grad():
            found = model(batch.measurements, batch.operator)
        truth, plane = batch.magnitude()[0].numpy(), centre_magnitude(found)[0].numpy()
        scores.append((psnr(truth, plane), ssim(truth, plane)))
    seconds = (time.process_time() - start) / len(cases)
    return {"psnr": np.mean(scores, axis=0)[0], "ssim": np.mean(scores, axis=0)[1], "seconds": seconds}


def changes(variant: str) -> list[tuple[str, Any]]:
    """Return the changes of the recipe that a variant is."""
    if variant in VARIANTS:
        return VARIANTS[variant]
    if "=" not in variant:
        raise SystemExit(f"no variant is called {variant!r}; there are {', '.join(VARIANTS)}, or KEY=VALUE; KEY=VALUE")
    pairs = (pair.partition("=") for pair in variant.split(";"))
    return [(key.strip(), yaml.safe_load(value)) for key, _, value in pairs]


def main() -> None:
    """Train and judge every variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="mri-general")
    parser.add_argument("--data", type=Path, nargs="+", help="images to train on and to hold out")
    parser.add_argument("--cpu-minutes", type=float, default=6.0, help="of each variant")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--slices", type=int, default=40, help="held-out slices to judge on")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms, two variants of a second")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        card = TrainingRecipe.from_dict(QUICK, "quick")
        options.cpu_minutes, options.slices, options.variants = 1 / 60, 1, ["as it is", FIELD + "steps=1"]
    else:
        data = [("data.train", [str(path) for path in options.data])] if options.data else []
        card = load_training_recipe(options.recipe, data)
    common = [("data.validation_slices", options.slices), ("training.workers", 0)]
    data = load_data(TrainingRecipe.from_dict(changed_card(card, common), "common"))
    data.validation.set_epoch(0)
    cases = list(data_loader(data.validation, card, training=False))
    print(f"{data.description}; {options.cpu_minutes:g} minutes of one core each, {card.training.loss}", flush=True)
    print(f"  {'':42} {'weights':>9} {'batches':>7} {'PSNR (dB)':>9} {'SSIM':>6} {'last (dB)':>9} {'s/slice':>7}")
    work, rows = f"{card.name}, {options.cpu_minutes:g} min", []
    for variant in options.variants:
        recipe = TrainingRecipe.from_dict(changed_card(card, [*common, *changes(variant)]), variant)
        torch.manual_seed(recipe.seed)
        averaged, last, count = train(recipe, data.train, options.cpu_minutes * 60)
        scores, raw = judge(averaged, cases), judge(last, cases)
        weights = sum(parameter.numel() for parameter in averaged.parameters())
        print(
            f"  {variant:42} {weights:9} {count:7} {scores['psnr']:9.2f} {scores['ssim']:6.4f} {raw['psnr']:9.2f} "
            f"{scores['seconds']:7.2f}",
            flush=True,
        )
        figures = {**scores, "psnr, last weights": raw["psnr"], "weights": weights, "batches": count}
        who = f"medrecon {recipe.model.method}, {variant}"
        rows += [{"work": work, "who": who, "metric": key, "value": float(value)} for key, value in figures.items()]
        save(rows, options.json)


def changed_card(recipe: TrainingRecipe, several: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the card of a recipe with changes."""
    return changed(recipe.model_dump(mode="json"), several)


if __name__ == "__main__":
    main()
