"""The proximal map of the wavelet coefficients' magnitudes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medrecon.optimization.proximal_gradient import over_magnitude
from medrecon.reconstructors.wavelet_transform import WaveletTransform


class WaveletShrinkage:
    """prox of λ Σ |detail coefficients| on planes (B, 1 or 2, C, *grid): complex soft thresholding.

    The smooth band is left alone. With ``generator``, every call first shifts the image by another
    random offset and back at the end (cycle spinning; Figueiredo and Nowak, IEEE Trans. Image Process.
    12:906, 2003): the grid of the wavelets then leaves no blocks in the image.
    """

    def __init__(self, transform: WaveletTransform, generator: torch.Generator | None) -> None:
        self._transform = transform
        self._generator = generator

    def __call__(self, v: Tensor, iteration: int, weight: Tensor) -> Tensor:  # noqa: ARG002 (every call does the same)
        """Return the proximal point of v for λ = ``weight``, (B,)."""
        if not bool(weight.any()):
            return v
        offset = self._offset()
        axes = tuple(range(3, v.ndim))
        moved = torch.roll(v, offset, axes) if any(offset) else v
        bands = self._transform.analyze(moved.flatten(0, 2))
        for level in bands.details:
            self._shrink(level.unflatten(0, v.shape[:3]), weight)
        result = self._transform.synthesize(bands).reshape(v.shape)
        return torch.roll(result, [-shift for shift in offset], axes) if any(offset) else result

    def _offset(self) -> Sequence[int]:
        """Draw one of the offsets that the deepest level tells apart."""
        if self._generator is None:
            return [0] * len(self._transform.levels)
        draw = torch.rand(len(self._transform.levels), generator=self._generator, device=self._generator.device)
        return [int(value * 2**level) for value, level in zip(draw.tolist(), self._transform.levels, strict=True)]

    def _shrink(self, planes: Tensor, weight: Tensor) -> None:
        """Shorten every coefficient by λ, in place; planes (B, 1 or 2, C, …)."""
        # max(|c| - λ, 0) / |c| = 1 - λ / max(|c|, λ)
        planes.mul_(over_magnitude(planes.unbind(1), weight).neg_().add_(1)[:, None])
