"""Images to noise and back with a bidirectional consistency model: what comes back, and whether it was noise.

    OMP_NUM_THREADS=1 python benchmarks/round_trips.py --data ../shared/data --model FOLDER
        [--slices N] [--pictures FOLDER] [--json FILE] [--quick]

The model is trained by ``mri-prior`` with ``--model.method bcm``; judged are slices of the subjects that it held back,
as in ``priors.py``. "1+1" is one network call up and one down, "2+2" and so on go by times in geometric progression.
"error" is the mean squared error over the variance of the images, "deviation" the standard deviation of the noise over
σ_max, in the object and beside it too, "neighbours" the correlation of horizontal neighbours in the noise (0 if it is
white), "seconds" processor time a slice. Unrelated noise, σ_max z, is brought down by as many calls to compare with.
``--quick`` takes phantoms and an untrained model.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from judging.case import Plane
from judging.pictures import sheet
from judging.score import Rows, row
from judging.small_mr import small_images, with_phase
from timing import save
from torch import Tensor

from medrecon.complex import from_channels, to_channels
from medrecon.models.bcm import BidirectionalConsistencyModel
from medrecon.models.bcm_sampling import FIRST_NOISE, follow, invert
from medrecon.operators.solvers import per_sample
from medrecon.simulation import brain_phantom

CALLS = (1, 2, 3, 4)
AIR = 0.02  # of the brightest pixel
PICTURES = 3


def way_up(model: BidirectionalConsistencyModel, calls: int) -> list[float]:
    """Return the times of an inversion, a geometric progression."""
    return np.geomspace(FIRST_NOISE, model.scheduler.sigma_max, calls + 1).tolist()


def way_down(model: BidirectionalConsistencyModel, calls: int) -> list[float]:
    """Return the times of a generation: the same ones, but down to σ_min."""
    return [*reversed(way_up(model, calls)[1:]), model.scheduler.sigma_min]


def neighbours(noise: Tensor) -> float:
    """Return the correlation of horizontal neighbours."""
    left, right = noise[..., :-1], noise[..., 1:]
    return float((left * right).mean() / noise.square().mean())


@torch.no_grad()
def judged(model: BidirectionalConsistencyModel, images: Tensor, calls: int) -> tuple[Rows, Tensor, Tensor]:
    """Return the rows, the noise over σ_max, and what comes back, for images (B, 2, H, W) in units of the network."""
    work, top = f"round trip {calls}+{calls}", model.scheduler.sigma_max
    generator = torch.Generator().manual_seed(calls)
    start = time.process_time()
    noise = invert(model.f, images, way_up(model, calls), generator)
    back = follow(model.f, noise, way_down(model, calls))
    seconds = (time.process_time() - start) / len(images)
    unrelated = top * torch.randn(images.shape, generator=generator)
    made = follow(model.f, unrelated, way_down(model, calls))
    variance = (images - images.mean()).square().mean()
    magnitude = torch.linalg.vector_norm(images, dim=1, keepdim=True)
    inside = (magnitude > AIR * magnitude.amax()).expand_as(images)
    figures = {
        "error": (back - images).square().mean() / variance,
        "deviation": noise.std() / top,
        "deviation in the object": noise[inside].std() / top,
        "deviation in air": noise[~inside].std() / top,
        "neighbours": neighbours(noise),
        "seconds": seconds,
    }
    rows = [row(work, "medrecon bcm", metric, float(value)) for metric, value in figures.items()]
    rows.append(row(work, "unrelated noise", "error", float((made - images).square().mean() / variance)))
    print(f"{work}  " + "  ".join(f"{each['who'].split()[0]} {each['metric']} {each['value']:.3f}" for each in rows))
    return rows, noise / top, back


def in_network(model: BidirectionalConsistencyModel, planes: list[Tensor]) -> Tensor:
    """Return images with a phase in units of the network, (B, 2, H, W)."""
    images = with_phase(planes, torch.Generator().manual_seed(0))
    return to_channels(images / per_sample(model.unit_of(images), images))


def magnitudes(channels: Tensor) -> Plane:
    """Return the magnitude of one image (1, 2, H, W)."""
    return from_channels(channels)[0, 0].abs().double().numpy()


def main() -> None:
    """Print the table, write rows and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training's data")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a trained model")
    parser.add_argument("--slices", type=int, default=24, help="held-back slices at most")
    parser.add_argument("--pictures", type=Path, help="folder for PNG pictures")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms and an untrained model, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        torch.manual_seed(0)
        model = BidirectionalConsistencyModel.from_preset("tiny", image_channels=2).eval()
        planes = list(brain_phantom(2, (32, 32), torch.Generator().manual_seed(0)).float())
    elif options.model is None:
        parser.error("give the folder of a trained model with --model")
    else:
        model = BidirectionalConsistencyModel.load(options.model).eval()
        planes = [plane for _, plane in small_images([options.model], options.data.resolve(), options.slices).held_back]
    images, rows = in_network(model, planes), []
    returned: list[dict[str, Plane]] = [{} for _ in planes[:PICTURES]]
    noises: list[dict[str, Plane]] = [{} for _ in returned]
    for calls in CALLS:
        found, noise, back = judged(model, images, calls)
        rows += found
        save(rows, options.json)
        for index in range(len(returned)):
            returned[index][f"{calls}+{calls}"] = magnitudes(back[index, None])
            noises[index][f"noise, {calls}"] = magnitudes(noise[index, None])
    if options.pictures is not None:
        for index in range(len(returned)):
            sheet(options.pictures / f"round-trip-{index}.png", magnitudes(images[index, None]), returned[index])
            sheet(options.pictures / f"noise-{index}.png", None, noises[index])


if __name__ == "__main__":
    main()
