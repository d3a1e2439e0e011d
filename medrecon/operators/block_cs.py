"""Block compressed sensing with a random pixel permutation."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from medrecon.errors import OperatorError
from medrecon.operators.base import DTYPES, LinearOperator, dtype_name
from medrecon.operators.registry import register_operator


@register_operator("block-compressed-sensing")
class BlockCompressedSensing(LinearOperator):
    r"""Random projections of blocks of randomly gathered pixels, :math:`y_j = \Phi^T (x_\pi)_j`.

    The pixels of a channel are permuted by :math:`\pi` and cut into blocks of N = ``block_size``²;
    a block is thus N pixels scattered over the image. :math:`\Phi` holds the first
    q = ⌈ratio · N⌉ columns of the orthogonal polar factor of an N × N Gaussian matrix, so
    :math:`A A^T = I` and :math:`A^+ = A^T` exactly. Where N does not divide the number of pixels, the
    remaining n < N pixels are one shorter block with ⌈ratio · n⌉ orthonormal rows of its own.
    (The operator of Chen et al., Invertible Diffusion Models for Compressed Sensing, TPAMI 2025.)

    Nothing random is stored but the seeds: both matrix and permutation are drawn on the CPU, and the
    polar factor is unique, so a seed means the same operator on every device.

    Parameters
    ----------
    image_shape
        (C, H, W); every channel is measured alike. (H, W) means C = 1.
    ratio
        Measurements per pixel, in (0, 1].
    block_size
        Root of the number of pixels of a block.
    seed
        Of the matrix, from 0 to 2^63 - 1.
    permutation_seed
        Of the permutation; None takes ``seed``.
    permutation
        Pixel orders (H·W,) or, one a sample, (B, H·W), instead of a drawn one.
    dtype
        Of the images: float32 or complex64, whose real and imaginary parts are measured alike.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import BlockCompressedSensing
    >>> operator = BlockCompressedSensing((1, 9, 7), 0.25, block_size=4)
    >>> operator(torch.ones(2, 1, 9, 7)).shape
    torch.Size([2, 1, 16])
    """

    phi: Tensor
    phi_double: Tensor
    phi_last: Tensor
    phi_last_double: Tensor
    permutation: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        ratio: float,
        *,
        block_size: int = 32,
        seed: int = 2025,
        permutation_seed: int | None = None,
        permutation: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        channels, height, width = _image_shape(image_shape)
        if not 0 < ratio <= 1:
            raise OperatorError(f"BlockCompressedSensing: ratio must be in (0, 1], got {ratio}")
        if block_size < 1:
            raise OperatorError(f"BlockCompressedSensing: block_size must be at least 1, got {block_size}")
        pixels, size = height * width, block_size**2
        blocks, last = divmod(pixels, size)
        rows, rows_last = _rows(ratio, size), _rows(ratio, last)
        data_shape = (channels, blocks * rows + rows_last)
        super().__init__((channels, height, width), data_shape, image_dtype=dtype, data_dtype=dtype)
        self.pinv_kind = "exact"
        self.unitary = self.data_shape[1] == pixels
        self.ratio = ratio
        self.block_size = block_size
        self.seed = seed
        self.permutation_seed = permutation_seed
        self.blocks = blocks
        given = permutation is not None
        order = _permutation(permutation, pixels, seed if permutation_seed is None else permutation_seed)
        self.register_buffer("permutation", order, persistent=given)
        # both precisions, for a Phi rounded to single has orthonormal columns to 1e-7 only
        device = order.device
        for name, count, columns in (("phi", size if blocks else 0, rows), ("phi_last", last, rows_last)):
            matrix = _orthogonal(count, seed)[:, :columns][None].to(device)
            self.register_buffer(f"{name}_double", matrix.clone(), persistent=False)
            self.register_buffer(name, matrix.float(), persistent=False)

    def _forward(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return torch.complex(self._forward(x.real), self._forward(x.imag))
        pixels = x.flatten(2)
        if self.permutation.shape[0] == 1:
            pixels = pixels[..., self.permutation[0]]
        else:
            pixels = pixels.gather(2, self.permutation[:, None].expand(-1, pixels.shape[1], -1))
        phi, phi_last = self._matrices(x.dtype)
        cut = self.blocks * self.block_size**2
        measured = []
        if self.blocks:
            measured.append((pixels[..., :cut].unflatten(2, (self.blocks, -1)) @ phi).flatten(2))
        if cut < pixels.shape[2]:
            measured.append(pixels[..., cut:] @ phi_last)
        return torch.cat(measured, 2)

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.is_complex():
            return torch.complex(self._adjoint(y.real), self._adjoint(y.imag))
        phi, phi_last = self._matrices(y.dtype)
        cut = self.blocks * phi.shape[1]
        parts = []
        if self.blocks:
            parts.append((y[..., :cut].unflatten(2, (self.blocks, -1)) @ phi.T).flatten(2))
        if cut < y.shape[2]:
            parts.append(y[..., cut:] @ phi_last.T)
        permuted = torch.cat(parts, 2)
        target = self.permutation[:, None].expand_as(permuted)
        return torch.empty_like(permuted).scatter_(2, target, permuted).view(-1, *self.image_shape)

    def _matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if dtype == torch.float64:
            return self.phi_double[0], self.phi_last_double[0]
        return self.phi[0], self.phi_last[0]

    def norm(self, *, max_iter: int = 200, tol: float = 1e-5) -> Tensor:  # noqa: ARG002 (known in closed form)
        """Return 1: the rows are orthonormal."""
        return self.phi.new_ones(self.batch_size)

    def norm_bound(self) -> Tensor:
        """Return the norm."""
        return self.norm()

    def config(self) -> dict[str, Any]:
        """Return name, shape, ratio, block size, seeds and dtype: with them all but a given permutation is rebuilt."""
        return {
            "operator": "block-compressed-sensing",
            "image_shape": list(self.image_shape),
            "ratio": self.ratio,
            "block_size": self.block_size,
            "seed": self.seed,
            "permutation_seed": self.permutation_seed,
            "dtype": dtype_name(self.image_dtype),
        }

    def batchable(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the permutation as a tensor, whether it was drawn or given."""
        return {**self.config(), "permutation_seed": None}, {"permutation": self.permutation}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the operator."""
        return cls(
            tuple(config["image_shape"]),
            config["ratio"],
            block_size=config["block_size"],
            seed=config["seed"],
            permutation_seed=config["permutation_seed"],
            permutation=tensors.get("permutation"),
            dtype=DTYPES[config.get("dtype", "float32")],
        )


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    if len(full) != 3 or min(full) < 1:
        raise OperatorError(
            f"BlockCompressedSensing: expected an image_shape (C, H, W) or (H, W) of positive sizes, got {tuple(shape)}"
        )
    return full


def _rows(ratio: float, size: int) -> int:
    # without the slack 0.07 * 100 = 7.000000000000001 would become 8
    return min(math.ceil(ratio * size - 1e-9), size)


def _permutation(given: Tensor | None, pixels: int, seed: int) -> Tensor:
    """Return pixel orders as (1 or B, pixels)."""
    if given is None:
        return torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))[None]
    order = given.to(torch.int64, copy=True).reshape(-1, given.shape[-1]) if given.ndim in (1, 2) else given
    wanted = torch.arange(pixels, device=given.device)
    if (
        order.ndim != 2
        or given.is_floating_point()
        or order.shape[1] != pixels
        or not bool((order.sort(1)[0] == wanted).all())
    ):
        raise OperatorError(
            f"BlockCompressedSensing: expected permutations of 0 … {pixels - 1} of shape ({pixels},) or (batch, "
            f"{pixels}), got shape {tuple(given.shape)} {given.dtype}"
        )
    return order


def _orthogonal(size: int, seed: int) -> Tensor:
    """Return the orthogonal polar factor of a Gaussian matrix (read only: it is shared)."""
    # tensors made for counting or tracing must neither come from the cache nor go there
    return _drawn(size, seed) if _get_current_dispatch_mode() is None else _drawn.__wrapped__(size, seed)


@lru_cache(maxsize=8)
def _drawn(size: int, seed: int) -> Tensor:
    gaussian = torch.randn((size, size), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if size == 0:
        return gaussian
    left, _, right = torch.linalg.svd(gaussian)
    return left @ right
