"""Inpainting: some pixels are seen, the others are not."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import DTYPES, LinearOperator, dtype_name
from medrecon.operators.registry import register_operator


@register_operator("inpainting")
class Inpainting(LinearOperator):
    """Pixels that were seen, y = m · x with m of zeros and ones; A = A^H = A^+.

    Parameters
    ----------
    mask
        (C, H, W), or (B, C, H, W) with one mask a sample; bool, or 0 and 1. C may be 1 for a mask
        that all channels share.
    channels
        C of the images, where the mask has C = 1.
    dtype
        float32, or complex64 for complex images.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import Inpainting
    >>> operator = Inpainting(torch.tensor([[[True, False]]]))
    >>> operator(torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[[[3., 0.]]]])
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, channels: int = 1, dtype: torch.dtype = torch.float32) -> None:
        if mask.ndim not in (3, 4) or not bool(((mask == 0) | (mask == 1)).all()):
            raise OperatorError(
                f"Inpainting: expected a mask (C, H, W) or (batch, C, H, W) of zeros and ones, got {tuple(mask.shape)}"
            )
        mask = mask.float().reshape(-1, *mask.shape[-3:])
        if mask.shape[1] not in (1, channels):
            channels = mask.shape[1]
        shape = (channels, *mask.shape[2:])
        super().__init__(shape, shape, image_dtype=dtype, data_dtype=dtype)
        self.pinv_kind = "exact"
        self.unitary = bool((mask == 1).all())
        self.register_buffer("mask", mask)

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _gram(self, x: Tensor) -> Tensor:
        return x * self.mask

    def norm(self, *, max_iter: int = 200, tol: float = 1e-5) -> Tensor:  # noqa: ARG002 (known in closed form)
        """Return 1, or 0 for a mask that keeps nothing."""
        return self.mask.flatten(1).amax(1)

    def norm_bound(self) -> Tensor:
        """Return the norm."""
        return self.norm()

    def config(self) -> dict[str, Any]:
        """Return name, channels and dtype; the mask is a tensor."""
        return {"operator": "inpainting", "channels": self.image_shape[0], "dtype": dtype_name(self.image_dtype)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the operator."""
        return cls(tensors["mask"], channels=config["channels"], dtype=DTYPES[config["dtype"]])
