"""A mask that is given, not drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medrecon.errors import UsageError
from medrecon.operators.samplers.base import plane


@dataclass(frozen=True, eq=False)
class FixedMask:
    """The mask of an array that somebody else made, e.g. a trajectory measured on a scanner.

    Parameters
    ----------
    mask
        ``(W,)``, ``(1, W)`` or ``(H, W)``, bool or numbers that are all 0 or 1.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        try:
            mask = torch.as_tensor(self.mask).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"FixedMask: mask is not an array of zeros and ones ({error})") from error
        values = mask if mask.dtype == torch.bool else mask != 0
        if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
            raise UsageError("FixedMask: a mask holds only 0 and 1; for measured k-space take `kspace != 0`")
        if mask.ndim not in (1, 2) or not bool(values.any()):
            raise UsageError(
                f"FixedMask: expected a mask (W,), (1, W) or (H, W) with at least one sample, got shape "
                f"{tuple(mask.shape)} with {int(values.sum())}"
            )
        object.__setattr__(self, "mask", values.clone() if mask.ndim == 2 else values[None].clone())

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return the mask, bool ``(1, W)`` or ``(H, W)``; the generator is not used."""
        del generator
        height, width = plane(shape)
        if tuple(self.mask.shape) not in ((1, width), (height, width)):
            raise UsageError(
                f"FixedMask: the mask is {tuple(self.mask.shape)}, the k-space plane {height}x{width}; "
                f"expected (1, {width}) or ({height}, {width})"
            )
        return self.mask.clone()
