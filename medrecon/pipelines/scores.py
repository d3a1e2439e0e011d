"""Scores per volume from slices that come one by one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrecon.datasets.source import Source
from medrecon.errors import MedreconError
from medrecon.metrics import evaluate_volume, over_volumes
from medrecon.pipelines.training.processes import Processes

GREATER_IS_BETTER: Mapping[str, bool] = {"nmse": False, "psnr": True, "ssim": True}


@dataclass(frozen=True)
class VolumeScore:
    """What a volume reaches by the definitions of :mod:`medrecon.metrics`.

    Parameters
    ----------
    volume
        Its name.
    scores
        ``nmse``, ``psnr`` (dB), ``ssim``, and ``data_range``, the maximum of the reference; empty after an error.
    acquisition, acceleration
        Its group.
    slices
        How many there are.
    error
        Why there are no scores.
    """

    volume: str
    scores: Mapping[str, float]
    acquisition: str = ""
    acceleration: float | None = None
    slices: int = 0
    error: str = ""


class VolumeScores:
    """Collects slices until a volume is whole, and scores it then.

    Parameters
    ----------
    volumes
        The name of the volume of every slice that will come.
    """

    def __init__(self, volumes: Iterable[str]) -> None:
        self._expected = Counter(volumes)
        self._waiting: dict[str, dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]] = defaultdict(dict)
        self.finished: dict[str, VolumeScore] = {}

    def update(self, sources: Iterable[Source], images: Tensor, targets: Tensor) -> None:
        """Take slices.

        Parameters
        ----------
        sources
            Where each is from.
        images, targets
            Magnitudes (B, h, w).
        """
        images, targets = (planes.detach().to("cpu", torch.float32) for planes in (images, targets))
        for source, image, target in zip(sources, images, targets, strict=True):
            slices = self._waiting[source.volume]
            slices[source.slice] = (target.numpy(), image.numpy())
            if len(slices) == self._expected[source.volume]:
                self._finish(source, slices)
                del self._waiting[source.volume]

    def unfinished(self) -> list[str]:
        """Return the volumes of which slices are missing: they could not be read."""
        return sorted(set(self._expected) - set(self.finished))

    def _finish(self, source: Source, slices: Mapping[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> None:
        order = sorted(slices)
        group = {"acquisition": source.acquisition, "acceleration": source.acceleration, "slices": len(order)}
        try:
            target, image = (np.stack([slices[index][part] for index in order]) for part in (0, 1))
            scores = {**evaluate_volume(target, image), "data_range": float(target.max())}
            score = VolumeScore(source.volume, scores, **group)  # type: ignore[arg-type]
        except (MedreconError, ValueError) as error:
            score = VolumeScore(source.volume, {}, **group, error=str(error))  # type: ignore[arg-type]
        self.finished[source.volume] = score


def gathered(scores: VolumeScores, processes: Processes) -> tuple[list[VolumeScore], list[str]]:
    """Return the scores of all processes, and the volumes of which slices are missing; all must call this."""
    found = processes.gather((scores.finished, scores.unfinished()))
    return merged(part for part, _ in found), sorted({name for _, names in found for name in names})


def merged(parts: Iterable[Mapping[str, VolumeScore]]) -> list[VolumeScore]:
    """Return the scores of several processes by name, each volume once."""
    together: dict[str, VolumeScore] = {}
    for part in parts:
        together |= part
    return [together[name] for name in sorted(together)]


def summary(scores: Iterable[VolumeScore]) -> dict[str, float]:
    """Return means over volumes, and with ``_2std`` twice the standard deviation where there are several."""
    return over_volumes([score.scores for score in scores if not score.error])


def groups(scores: Iterable[VolumeScore]) -> dict[tuple[str, float | None], list[VolumeScore]]:
    """Return the scores by (acquisition, acceleration), as fastMRI's tables are."""
    found: dict[tuple[str, float | None], list[VolumeScore]] = defaultdict(list)
    for score in scores:
        found[score.acquisition, score.acceleration].append(score)
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or 0)))
