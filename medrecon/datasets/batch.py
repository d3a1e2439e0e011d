"""Samples and batches: measurements, the operator that made them, and the truth."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.operators.base import LinearOperator
from medrecon.operators.batching import batch_operators


class TrainingSample(NamedTuple):
    """One measured image.

    Attributes
    ----------
    measurements
        (1, *operator.data_shape).
    operator
        For a batch of 1.
    target
        The true image (1, *operator.image_shape).
    source
        Where it is from, for messages: file and slice.
    """

    measurements: Tensor
    operator: LinearOperator
    target: Tensor
    source: str = ""


class TrainingBatch(NamedTuple):
    """Several measured images.

    Attributes
    ----------
    measurements
        (B, *operator.data_shape).
    operator
        One for all, or one a sample.
    target
        The true images (B, *operator.image_shape).
    sources
        Where each is from.
    """

    measurements: Tensor
    operator: LinearOperator
    target: Tensor
    sources: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Return the batch on a device."""
        return TrainingBatch(
            self.measurements.to(device), self.operator.to(device), self.target.to(device), self.sources
        )


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Make a batch of samples whose operators have one class and one shape; the ``collate_fn`` of a data loader.

    Raises
    ------
    OperatorError
        Where they do not fit, see :func:`~medrecon.operators.batch_operators`.
    """
    operator = batch_operators([sample.operator for sample in samples])
    return TrainingBatch(
        torch.cat([sample.measurements for sample in samples]),
        operator,
        torch.cat([sample.target for sample in samples]),
        tuple(sample.source for sample in samples),
    )
