"""The fan-beam projector and its transpose as a pair of torch operators, each the other's derivative.

They are ``torch.ops.medrecon.fan_projection`` and ``….fan_backprojection``. Geometry is passed as tensors
and numbers, so that calls can be traced and compiled around.
"""

from typing import Any

import torch
from torch import Tensor

from medrecon.operators.ct import backends


@torch.library.custom_op("medrecon::fan_projection", mutates_args=())
def fan_projection(image: Tensor, sources: Tensor, directions: Tensor) -> Tensor:
    """Return the sinograms (N, views, bins) of images (N, H, W); see :mod:`medrecon.operators.ct.fan_torch`."""
    return backends.run("fan", "project", image, sources, directions)


@torch.library.custom_op("medrecon::fan_backprojection", mutates_args=())
def fan_backprojection(sinogram: Tensor, sources: Tensor, directions: Tensor, height: int, width: int) -> Tensor:
    """Return the transpose: images (N, height, width) of sinograms (N, views, bins)."""
    return backends.run("fan", "backproject", sinogram, sources, directions, height, width)


@fan_projection.register_fake
def _(image: Tensor, sources: Tensor, directions: Tensor) -> Tensor:  # noqa: ARG001 (the operator's schema)
    return image.new_empty((image.shape[0], *directions.shape[:2]))


@fan_backprojection.register_fake
def _(sinogram: Tensor, sources: Tensor, directions: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG001 (schema)
    return sinogram.new_empty((sinogram.shape[0], height, width))


def _keep_image(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 (torch's protocol)
    image, *geometry = inputs
    ctx.save_for_backward(*geometry)
    ctx.size = tuple(image.shape[1:])


def _keep_sinogram(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 (torch's protocol)
    ctx.save_for_backward(*inputs[1:3])


def _backward_of_projection(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
    return fan_backprojection(gradient, *ctx.saved_tensors, *ctx.size), None, None


def _backward_of_backprojection(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
    return fan_projection(gradient, *ctx.saved_tensors), None, None, None, None


fan_projection.register_autograd(_backward_of_projection, setup_context=_keep_image)
fan_backprojection.register_autograd(_backward_of_backprojection, setup_context=_keep_sinogram)
