"""Between native complex tensors and the real channels that networks want."""

import torch
from torch import Tensor


def to_channels(x: Tensor) -> Tensor:
    """Split a complex tensor (B, C, ...) into real channels (B, 2C, ...): re_1, im_1, re_2, im_2 and so on.

    Real tensors pass unchanged, so a network's border need not ask which it has.
    """
    if not x.is_complex():
        return x
    parts = torch.view_as_real(x.resolve_conj()).movedim(-1, 2)
    return parts.flatten(1, 2)


def from_channels(x: Tensor) -> Tensor:
    """Join real channels (B, 2C, ...) to a complex tensor (B, C, ...): the inverse of :func:`to_channels`."""
    if x.is_complex() or x.ndim < 2 or x.shape[1] % 2:
        raise ValueError(
            f"from_channels: expected a real tensor (batch, 2C, ...), got shape {tuple(x.shape)} and dtype {x.dtype}"
        )
    parts = x.unflatten(1, (-1, 2)).movedim(2, -1)
    return torch.view_as_complex(parts.contiguous())
