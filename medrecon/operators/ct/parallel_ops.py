"""The parallel-beam projector and its transpose as a pair of torch operators, each the other's derivative.

They are ``torch.ops.medrecon.parallel_projection`` and ``….parallel_backprojection``. Geometry is passed
as tensors and numbers, so that calls can be traced and compiled around.
"""

from typing import Any

import torch
from torch import Tensor

from medrecon.operators.ct import backends


@torch.library.custom_op("medrecon::parallel_projection", mutates_args=())
def parallel_projection(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    """Return the sinograms (N, views, count) of images (N, H, W); see :mod:`medrecon.operators.ct.parallel_torch`."""
    return backends.run("parallel", "project", image, views, pitch, count)


@torch.library.custom_op("medrecon::parallel_backprojection", mutates_args=())
def parallel_backprojection(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    """Return the transpose: images (N, height, width) of sinograms (N, views, bins)."""
    return backends.run("parallel", "backproject", sinogram, views, pitch, height, width)


@parallel_projection.register_fake
def _(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:  # noqa: ARG001 (the operator's schema)
    return image.new_empty((image.shape[0], views.shape[0], count))


@parallel_backprojection.register_fake
def _(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:  # noqa: ARG001 (schema)
    return sinogram.new_empty((sinogram.shape[0], height, width))


def _keep_image(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 (torch's protocol)
    image, views, ctx.pitch, _ = inputs
    ctx.save_for_backward(views)
    ctx.size = tuple(image.shape[1:])


def _keep_sinogram(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 (torch's protocol)
    sinogram, views, ctx.pitch, _, _ = inputs
    ctx.save_for_backward(views)
    ctx.count = sinogram.shape[2]


def _backward_of_projection(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
    (views,) = ctx.saved_tensors
    return parallel_backprojection(gradient, views, ctx.pitch, *ctx.size), None, None, None


def _backward_of_backprojection(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
    (views,) = ctx.saved_tensors
    return parallel_projection(gradient, views, ctx.pitch, ctx.count), None, None, None, None


parallel_projection.register_autograd(_backward_of_projection, setup_context=_keep_image)
parallel_backprojection.register_autograd(_backward_of_backprojection, setup_context=_keep_sinogram)
