"""Networks that take an operator, within MONAI's trainers and evaluators."""

from collections.abc import Callable
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.base import LinearOperator


class ReconstructionInferer(Inferer):
    """Runs ``network(measurements, operator)`` in parts of a batch.

    ``SupervisedTrainer`` and ``SupervisedEvaluator`` call it with what ``prepare_batch`` returns:
    ``(measurements, target, (operator,), {})`` or ``(measurements, target, (), {"operator": operator})``.

    Parameters
    ----------
    batch_size
        Largest number of samples that go through the network at once; None for all. An operator with a buffer a
        sample is split along with them; one that cannot be rebuilt from its ``config()`` is run whole.
    magnitude
        Return magnitudes (B, 1, H, W), the root sum of squares over the map sets of complex images; real images
        stay as they are.
    crop
        Return the centre (rows, columns) of the images, the reconstruction grid of oversampled k-space.
    """

    def __init__(
        self, batch_size: int | None = None, magnitude: bool = False, crop: tuple[int, int] | None = None
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"ReconstructionInferer: batch_size must be at least 1, got {batch_size}")
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            raise UsageError(f"ReconstructionInferer: crop is (rows, columns), got {crop}")
        self.batch_size = batch_size
        self.magnitude = magnitude
        self.crop = crop

    def __call__(self, inputs: Tensor, network: Callable[..., Any], operator: LinearOperator | None = None) -> Tensor:
        """Return images (B, *image_shape), or what ``magnitude`` and ``crop`` make of them.

        Parameters
        ----------
        inputs
            Measurements (B, *data_shape); batches of single slices (B, C, 1, …), as the readers shape them, lose
            the slice axis.
        network
            Called as ``network(measurements, operator)``; of a network with several outputs the first is taken.
        operator
            For one sample or for all B.
        """
        if not isinstance(operator, LinearOperator):
            raise UsageError(
                f"ReconstructionInferer: expected a LinearOperator beside the measurements, got "
                f"{type(operator).__name__}; let prepare_batch return (measurements, target, (operator,), {{}})"
            )
        data = _samples(inputs, operator)
        count = data.shape[0]
        size = self.batch_size or count
        parts = [] if size >= count else _split(operator, count, size)
        if not parts:
            return self._finished(_first(network(data, operator)))
        images = [_first(network(data[start : start + size], part)) for start, part in parts]
        return self._finished(torch.cat(images))

    def _finished(self, images: Tensor) -> Tensor:
        if self.crop is not None:
            rows, columns = self.crop
            top = max(images.shape[-2] - rows, 0) // 2
            left = max(images.shape[-1] - columns, 0) // 2
            images = images[..., top : top + rows, left : left + columns]
        if self.magnitude and images.is_complex():
            images = torch.linalg.vector_norm(images, dim=1, keepdim=True)
        return images


def _samples(inputs: Tensor, operator: LinearOperator) -> Tensor:
    data = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
    shape = operator.data_shape
    if data.ndim == len(shape) + 2 and data.shape[2] == 1:
        data = data.squeeze(2)
    if tuple(data.shape[1:]) != shape:
        raise UsageError(
            f"ReconstructionInferer: measurements of shape {tuple(inputs.shape)} are not what "
            f"{type(operator).__name__} maps to, (B, {', '.join(map(str, shape))}); volumes are measured slice by "
            "slice, load one slice an item"
        )
    return data


def _first(output: Any) -> Tensor:  # noqa: ANN401 (whatever a network returns)
    tensor: Tensor = output[0] if isinstance(output, list | tuple) else output
    return tensor


def _split(operator: LinearOperator, count: int, size: int) -> list[tuple[int, LinearOperator]]:
    """Return the operators of the parts with their starts; nothing where the operator cannot be taken apart."""
    starts = range(0, count, size)
    own = operator.batch_size
    if own == 1:
        return [(start, operator) for start in starts]
    try:
        config, tensors = operator.batchable()
    except NotImplementedError:
        return []
    parts: list[tuple[int, LinearOperator]] = []
    for start in starts:
        stop = min(start + size, count)
        chosen = {
            name: value[start:stop] if value.ndim and value.shape[0] == own else value
            for name, value in tensors.items()
        }
        try:
            part = type(operator).from_config(config, chosen).to(operator.device)
        except NotImplementedError:
            return []
        if part.data_shape != operator.data_shape or part.batch_size not in (1, stop - start):
            return []
        parts.append((start, part))
    return parts
