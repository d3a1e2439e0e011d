"""The parallel-beam projector and its transpose as a pair of torch operators, each the other's derivative.

``torch.ops.medrecon.parallel_projection`` and ``…backprojection`` run the shear-sum projector of
:mod:`~medrecon.operators.ct.parallel_numba` on the CPU, Triton kernels on CUDA, and plain torch where
either is missing. Geometry is passed as tensors and numbers, so that they can be traced.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from medrecon.operators.ct import parallel_torch


def parallel_projection(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    """Return the sinograms (N, views, count) of images (N, H, W); see :mod:`medrecon.operators.ct.parallel_torch`."""
    return _projection(image, views, pitch, count)


def parallel_backprojection(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    """Return the transpose: images (N, height, width) of sinograms (N, views, bins)."""
    return _backprojection(sinogram, views, pitch, height, width)


@torch.library.custom_op("medrecon::parallel_projection", mutates_args=())
def _projection(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:
    if image.device.type == "cpu" and has_numba():
        from medrecon.operators.ct import parallel_numba

        return torch.from_numpy(parallel_numba.project(image.numpy(), views.numpy(), pitch, count))
    if image.device.type == "cuda" and has_triton():
        from medrecon.operators.ct import triton_parallel

        return triton_parallel.project(image, views, pitch, count)
    return parallel_torch.project(image, views, pitch, count)


@torch.library.custom_op("medrecon::parallel_backprojection", mutates_args=())
def _backprojection(sinogram: Tensor, views: Tensor, pitch: float, height: int, width: int) -> Tensor:
    if sinogram.device.type == "cpu" and has_numba():
        from medrecon.operators.ct import parallel_numba

        return torch.from_numpy(parallel_numba.backproject(sinogram.numpy(), views.numpy(), pitch, height, width))
    if sinogram.device.type == "cuda" and has_triton():
        from medrecon.operators.ct import triton_parallel

        return triton_parallel.backproject(sinogram, views, pitch, height, width)
    return parallel_torch.backproject(sinogram, views, pitch, height, width)


@_projection.register_fake
def _(image: Tensor, views: Tensor, pitch: float, count: int) -> Tensor:  # noqa: ARG001 (the operator's schema)
    return image.new_empty((image.shape[0], views.shape[0], count))


@_backprojection.register_fake
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


def _projection_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
    (views,) = ctx.saved_tensors
    return _backprojection(gradient, views, ctx.pitch, *ctx.size), None, None, None


def _backprojection_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
    (views,) = ctx.saved_tensors
    return _projection(gradient, views, ctx.pitch, ctx.count), None, None, None, None


_register: tuple[tuple[Any, Callable[..., Any], Callable[..., Any]], ...] = (
    (_projection, _projection_backward, _keep_image),
    (_backprojection, _backprojection_backward, _keep_sinogram),
)
for _operator, _backward, _setup in _register:
    _operator.register_autograd(_backward, setup_context=_setup)


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """Whether the compiled CPU kernels can be used."""
    return find_spec("numba") is not None


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether the GPU kernels can be used; torch brings Triton along where it is built for CUDA."""
    return find_spec("triton") is not None
