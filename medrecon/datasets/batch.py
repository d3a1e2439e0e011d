"""Samples and batches: measurements, the operator that made them, and the truth."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medrecon.datasets.source import Source
from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.batching import batch_operators

UNKNOWN = Source("a sample")


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
        Where it is from.
    reference
        Magnitude image (1, h, w) that metrics compare with the centre of the reconstruction: fastMRI's
        root sum of squares or emulated single-coil image. None where the magnitude of the target serves.
    """

    measurements: Tensor
    operator: LinearOperator
    target: Tensor
    source: Source = UNKNOWN
    reference: Tensor | None = None


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
    reference
        Magnitude images (B, h, w) that metrics compare with, see :class:`TrainingSample`.
    """

    measurements: Tensor
    operator: LinearOperator
    target: Tensor
    sources: tuple[Source, ...] = ()
    reference: Tensor | None = None

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Return the batch on a device."""
        return TrainingBatch(
            self.measurements.to(device),
            self.operator.to(device),
            self.target.to(device),
            self.sources,
            None if self.reference is None else self.reference.to(device),
        )

    def magnitude(self) -> Tensor:
        """Return the magnitude images (B, h, w) that reconstructions are compared with."""
        return centre_magnitude(self.target) if self.reference is None else self.reference


def centre_magnitude(images: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
    """Return what metrics see of images (B, C, H, W): the centre (B, h, w) of the root sum of squares over C.

    Real images of one channel are returned as they are, negative values included.

    Parameters
    ----------
    images
        Real or complex.
    shape
        (h, w) of the centre, which starts at (H - h) // 2; all by default.
    """
    single = images.shape[1] == 1 and not images.is_complex()
    planes = images[:, 0] if single else torch.linalg.vector_norm(images, dim=1)
    if shape is None:
        return planes
    top, left = ((have - want) // 2 for have, want in zip(planes.shape[1:], shape, strict=True))
    return planes[:, top : top + shape[0], left : left + shape[1]]


def collate(samples: Sequence[TrainingSample | None]) -> TrainingBatch | None:
    """Make a batch of samples whose operators have one class and one shape; the ``collate_fn`` of a data loader.

    Samples that could not be read (None) are left out; None if nothing remains.

    Raises
    ------
    OperatorError
        Where they do not fit, see :func:`~medrecon.operators.batch_operators`.
    """
    kept = [sample for sample in samples if sample is not None]
    if not kept:
        return None
    operator = batch_operators([sample.operator for sample in kept])
    references = [sample.reference for sample in kept if sample.reference is not None]
    shapes = sorted({tuple(reference.shape) for reference in references})
    if references and (len(references) < len(kept) or len(shapes) > 1):
        found = "some samples have none" if len(references) < len(kept) else f"they have the shapes {shapes}"
        raise OperatorError(f"collate: a batch needs reference images of one shape, {found}; use a batch size of 1")
    return TrainingBatch(
        torch.cat([sample.measurements for sample in kept]),
        operator,
        torch.cat([sample.target for sample in kept]),
        tuple(sample.source for sample in kept),
        torch.cat(references) if references else None,
    )
