"""fastMRI's image quality, volume by volume, as a metric of MONAI's engines."""

from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from monai.metrics.metric import CumulativeIterationMetric
from numpy.typing import NDArray
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.metrics import evaluate_volume

MetricName = Literal["ssim", "psnr", "nmse"]
Reduction = Literal["mean", "median", "none"]


class VolumeMetric(CumulativeIterationMetric):
    """SSIM, PSNR or NMSE of whole volumes by fastMRI's definitions, see :func:`medrecon.metrics.evaluate_volume`.

    Call it with batches, ``metric(y_pred, y)``, then ``aggregate()``, then ``reset()``; or pass it to
    ``monai.handlers.IgniteMetricHandler``. In a process group every rank joins each ``aggregate()``, whether it has
    seen a volume or not, and all return the same. A sampler that repeats items to make ranks even counts those
    twice: use ``DistributedSampler(..., even_divisible=False)``.

    Parameters
    ----------
    metric_name
        "ssim", "psnr" (dB) or "nmse".
    reduction
        Over volumes: "mean", "median" or "none".

    Attributes
    ----------
    greater_is_better
        False for NMSE. MONAI takes the largest value of a key metric for the best: pass :meth:`metric_cmp_fn` to
        the evaluator.
    """

    def __init__(self, metric_name: MetricName = "ssim", reduction: Reduction = "mean") -> None:
        super().__init__()
        if metric_name not in get_args(MetricName):
            raise UsageError(
                f"VolumeMetric: metric_name must be one of {', '.join(get_args(MetricName))}, got {metric_name!r}"
            )
        if reduction not in get_args(Reduction):
            raise UsageError(
                f"VolumeMetric: reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}"
            )
        self.metric_name = metric_name
        self.reduction = reduction
        self.greater_is_better = metric_name != "nmse"

    def metric_cmp_fn(self, current: float, best: float) -> bool:
        """Tell whether ``current`` is better than ``best``; the ``metric_cmp_fn`` of MONAI's evaluators."""
        return current > best if self.greater_is_better else current < best

    def aggregate(self, reduction: Reduction | None = None) -> Tensor:
        """Return the value over the volumes of all ranks, a float64 scalar; with "none" one value each, (N, 1).

        Every rank has to call it. Raises UsageError where no rank has seen a volume.
        """
        chosen = reduction or self.reduction
        self._synced = False  # the ranks must agree on whether to gather, and only aggregate is called by all
        values = self.get_buffer()
        if values is None:
            raise UsageError(f"VolumeMetric: no volume has been given for {self.metric_name}; is the loader empty?")
        if chosen == "none":
            return values
        return values.mean() if chosen == "mean" else values.quantile(0.5)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the values of a batch, (B, 1) float64.

        Volumes are (B, S, H, W), or images of MONAI's axes (B, 1, X, Y, Z), which are turned to (Z, Y, X).
        """
        if y is None:
            raise UsageError("VolumeMetric: needs the true volumes y beside y_pred")
        if y_pred.shape[0] != y.shape[0]:
            raise UsageError(f"VolumeMetric: {y_pred.shape[0]} volumes, but {y.shape[0]} true ones")
        pairs = zip(_volumes(y), _volumes(y_pred), strict=True)
        values = [evaluate_volume(truth, image, [self.metric_name])[self.metric_name] for truth, image in pairs]
        return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)

    def _compute_list(self, y_pred: Any, y: Any = None) -> Tensor:  # noqa: ANN401 (a list on either side)
        """Return the values of volumes (S, H, W) or (1, X, Y, Z) that may differ in size, (B, 1) float64."""
        if y is None or len(y_pred) != len(y):
            raise UsageError(f"VolumeMetric: {len(y_pred)} volumes, but {0 if y is None else len(y)} true ones")
        pairs = zip(y_pred, y, strict=True)
        values = [
            self._compute_tensor(torch.as_tensor(image)[None], torch.as_tensor(true)[None]) for image, true in pairs
        ]
        return torch.cat(values) if values else torch.empty((0, 1), dtype=torch.float64)

    def _sync(self) -> None:
        """Gather the values of all ranks, in the order of ranks; MONAI's own leaves out ranks without any."""
        if self._synced:
            return
        own = [value.tolist() for value in self._buffers[0]] if self._buffers else []
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, own)
            own = [value for rank in gathered for value in rank]
        self._synced_tensors = [torch.tensor(own, dtype=torch.float64)] if own else None
        self._synced = True


def _volumes(batch: Tensor) -> list[NDArray[Any]]:
    values = torch.as_tensor(batch).detach()
    values = values.abs() if values.is_complex() else values.float()
    if values.ndim == 5 and values.shape[1] == 1:
        values = values[:, 0].permute(0, 3, 2, 1)
    if values.ndim != 4:
        raise UsageError(
            f"VolumeMetric: expected volumes (B, S, H, W) or images (B, 1, X, Y, Z), got {tuple(values.shape)}"
        )
    return [np.ascontiguousarray(volume) for volume in values.cpu().numpy()]
