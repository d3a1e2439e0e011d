"""The methods that are compared: classical ones with their λ chosen on training slices, and trained models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medrecon.metrics import psnr
from medrecon.reconstructors import Reconstructor, make_method
from medrecon.reconstructors.base import Setting
from medrecon.reconstructors.learned import method_of_checkpoint

from .case import Case, plane_of

SPARSE = (0.0003, 0.001, 0.003, 0.01, 0.03)
ENERGY = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
XRAY = (0.0001, 0.0003, 0.001, 0.003, 0.01)
_HALF_STEP = 10**0.25
BASELINE = "medrecon tv"


@dataclass(frozen=True)
class Method:
    """A registered method, its parameters, and the λ to choose from where it has one."""

    name: str
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    learned: bool = False

    def build(self, weight: float | None = None) -> Reconstructor:
        """Return the reconstructor."""
        return make_method(self.name, {**self.parameters, **({} if weight is None else {"regularization": weight})})


def classical(domain: str, *, coils: bool) -> dict[str, Method]:
    """Return the classical methods of a domain by the name that a table shows."""
    if domain == "ct":
        return {
            "medrecon fbp, hann": Method("fbp", {"filter": "hann"}),
            "medrecon sirt": Method("sirt"),
            "medrecon cgls": Method("cgls"),
            BASELINE: Method("tv", {"nonnegative": True}, XRAY),
        }
    if domain == "cs":
        return {"adjoint": Method("adjoint"), BASELINE: Method("tv", {}, SPARSE)}
    # one coil has nothing to unfold: CG-SENSE would be the zero-filled image again
    unfolding = {"medrecon cg-sense": Method("cg-sense", {}, ENERGY)} if coils else {}
    return {
        "zero-filled": Method("adjoint"),
        **unfolding,
        BASELINE: Method("tv", {}, SPARSE),
        "medrecon l1-wavelet": Method("l1-wavelet", {}, SPARSE),
    }


def learned(checkpoints: Sequence[Path]) -> dict[str, Method]:
    """Return trained models; several of one kind are told apart by their folders."""
    kinds = [method_of_checkpoint(folder) for folder in checkpoints]
    return {
        f"medrecon {kind}" + (f", {folder.name}" if kinds.count(kind) > 1 else ""): Method(
            kind, {"checkpoint": str(folder)}, learned=True
        )
        for kind, folder in zip(kinds, checkpoints, strict=True)
    }


class Tuner:
    """Chooses λ on slices that nothing is judged on, once for every method and way of measuring."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[str, str], float] = {}

    def weight(self, tuned_as: str, who: str, method: Method, tuning: Callable[[], Sequence[Case]]) -> float | None:
        """Return the λ of the highest mean PSNR on the grid and between its points; None where there is no λ."""
        if not method.grid:
            return None
        if (tuned_as, who) not in self._chosen:
            cases = tuning()
            found = {weight: _quality(method.build(weight), cases) for weight in method.grid}
            best = max(found, key=found.__getitem__)
            # the grid is coarse: half a step to either side, as far as it goes
            between = [weight for weight in (best / _HALF_STEP, best * _HALF_STEP) if min(found) < weight < max(found)]
            found |= {weight: _quality(method.build(weight), cases) for weight in between}
            self._chosen[tuned_as, who] = max(found, key=found.__getitem__)
        return self._chosen[tuned_as, who]


def _quality(reconstruct: Reconstructor, cases: Sequence[Case]) -> float:
    images = [plane_of(reconstruct(case.measurements, case.operator)) for case in cases]
    return float(np.mean([psnr(case.truth, image) for case, image in zip(cases, images, strict=True)]))
