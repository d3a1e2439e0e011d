"""Variable-density Poisson discs: incoherent like random sampling, but without clumps and holes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers import checks
from medrecon.operators.samplers.base import centre, centre_count, cpu_generator, plane
from medrecon.operators.samplers.density import normalised_radius

_PASSES = 12


@dataclass(frozen=True)
class PoissonDisc:
    r"""Random points no two of which are closer than a distance that grows with :math:`|k|`.

    Dart throwing over a random order of the grid: a position is taken unless it lies within
    :math:`r(q) = r_0 (1 + g \rho_q)` samples of one taken before (its square rounded at
    random to a whole number), where :math:`\rho` is 0 in the centre and 1 on
    the inscribed ellipse. :math:`r_0` is searched so that just more points than needed fit; the few
    too many are removed at random, so the acceleration is exact.

    Parameters
    ----------
    acceleration
        Positions of the whole rectangle divided by positions sampled.
    center_fraction
        Fraction of *each* axis that is fully sampled around zero frequency, for calibration.
    growth
        The g above; 0 is a Poisson disc of uniform density. Below acceleration 3 a grid leaves little
        room for distances, and the mask comes close to random sampling.
    elliptical
        Leave the corners of k-space out.
    """

    acceleration: float
    center_fraction: float = 0.06
    growth: float = 2.0
    elliptical: bool = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        checks.real(owner, "acceleration", self.acceleration, 1)
        checks.real(owner, "center_fraction", self.center_fraction, 0, 1)
        checks.real(owner, "growth", self.growth, 0)
        checks.flag(owner, "elliptical", self.elliptical)
        checks.feasible(owner, self.acceleration, self.center_fraction**2)

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw one mask, bool ``(H, W)``."""
        height, width = plane(shape)
        owner = type(self).__name__
        core = np.zeros((height, width), dtype=bool)
        core[tuple(centre(size, centre_count(owner, size, self.center_fraction)) for size in (height, width))] = True
        core[height // 2, width // 2] = True
        radius = normalised_radius((height, width)).numpy()
        allowed = (radius <= 1) | core if self.elliptical else np.ones_like(core)
        wanted = max(round(height * width / self.acceleration), 1) - int(core.sum())
        free = int(allowed.sum()) - int(core.sum())
        if wanted < 0:
            checks.feasible(owner, self.acceleration, float(core.mean()))
        if wanted > free:
            raise UsageError(
                f"{owner}: acceleration {self.acceleration:g} needs more samples than the ellipse holds "
                f"({float(allowed.mean()):.3g} of the plane); raise acceleration or set elliptical to false"
            )
        order = torch.randperm(height * width, generator=cpu_generator(generator)).numpy()
        order = order[(allowed & ~core).ravel()[order]]
        dither = torch.rand((height, width), dtype=torch.float64, generator=generator).numpy()
        points = _fitting(core, 1 + self.growth * radius, dither, order, wanted)
        keep = torch.randperm(len(points), generator=generator).numpy()[:wanted]
        core.ravel()[points[keep]] = True
        return torch.from_numpy(core)


def _fitting(
    core: NDArray[np.bool_],
    growth: NDArray[np.float64],
    dither: NDArray[np.float64],
    order: NDArray[np.int64],
    wanted: int,
) -> NDArray[np.int64]:
    """Return a disc set of at least ``wanted`` points, with the largest base distance found by bisection."""
    best = order
    low = 1 / float(growth.max())  # below this no distance exceeds one sample: every position fits
    # a maximal set holds about 0.7 points per squared distance
    high = low + 4.0 * float(np.sqrt(np.sum(growth.ravel()[order] ** -2.0) / max(wanted, 1))) + 2.0
    guess = max(high / 4, 1.1 * low)
    for attempt in range(_PASSES):
        points = _throw(core, guess * growth, dither, order)
        if len(points) >= wanted:
            low = guess
            best = points if len(points) < len(best) else best
        else:
            high = guess
        if wanted <= len(best) <= 1.02 * wanted + 1 or high - low < 0.02 * high:
            break  # the second: nothing lies between, the count falls in steps
        step = guess * float(np.sqrt(len(points) / (1.01 * max(wanted, 1))))  # the count falls as distance^-2
        guess = step if attempt < 3 and low < step < high else (low + high) / 2
    return best


def _throw(
    core: NDArray[np.bool_], distance: NDArray[np.float64], dither: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Take positions in the given order unless a former one (or the core) is within its distance.

    ``dither`` in [0, 1) rounds each squared distance up or down to a whole number, for on a grid only
    those differ; without it the density would fall in visible rings.
    """
    height, width = core.shape
    margin = int(np.ceil(distance.max())) + 1
    stride = width + 2 * margin
    blocked = np.zeros((height + 2 * margin, stride), dtype=np.uint8)
    flat = blocked.ravel()
    squared = np.maximum(np.floor(distance**2 + dither), 1).astype(np.int64)
    discs: dict[int, NDArray[np.int64]] = {
        int(value): _offsets(int(value), stride) for value in np.unique(squared.ravel()[order])
    }
    rows, columns = np.nonzero(core)
    for row, column in zip(rows, columns, strict=True):
        value = int(squared[row, column])
        if value not in discs:
            discs[value] = _offsets(value, stride)
        flat[(row + margin) * stride + column + margin + discs[value]] = 1
    padded = ((order // width + margin) * stride + order % width + margin).tolist()
    reach: list[int] = squared.ravel()[order].tolist()
    view = flat.data  # reads one byte several times faster than an array does
    taken = []
    for index, (position, value) in enumerate(zip(padded, reach, strict=True)):
        if not view[position]:
            flat[position + discs[value]] = 1
            taken.append(index)
    return order[np.array(taken, dtype=np.int64)]


def _offsets(squared: int, stride: int) -> NDArray[np.int64]:
    """Flat offsets of all grid points closer than the root of ``squared``."""
    reach = int(np.ceil(np.sqrt(squared)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = y * y + x * x < max(squared, 1)
    return np.asarray((y * stride + x)[inside], dtype=np.int64)
