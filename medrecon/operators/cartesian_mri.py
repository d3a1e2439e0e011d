"""Cartesian MRI: coil sensitivities, Fourier transform, undersampling."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.base import LinearOperator
from medrecon.operators.fourier import centring_constant, centring_ramp
from medrecon.operators.registry import register_operator

# One block of coils should stay in the processor's cache: 2^18 complex64 samples are 2 MiB.
_CPU_BLOCK = 2**18
_GPU_BLOCK = 2**26


@register_operator("cartesian-mri")
class CartesianMRI(LinearOperator):
    """Undersampled multi-coil k-space of an image, y_c = M F Σ_s S_{s,c} x_s.

    F is the centred unitary Fourier transform (zero frequency at N // 2, any size), M the sampling
    mask, S the coil sensitivity maps; several map sets s are the soft-SENSE model (Uecker et al.,
    Magn. Reson. Med. 71:990, 2014). Nothing is ever shifted: the ramp that centres F is folded into
    maps and mask once. The normal operator transforms only along the axes on which the mask varies.

    Without maps it is the single-coil operator M F, whose pseudo-inverse is A^H exactly if the mask
    holds only 0 and 1; with maps the pseudo-inverse is iterative.

    Parameters
    ----------
    mask
        Sampling mask, bool or non-negative weights, broadcastable to (H, W) or (B, H, W); (D, H, W)
        or (B, D, H, W) for ``spatial_dims=3``. A vector (W,) undersamples the last axis. None means
        fully sampled.
    maps
        Coil sensitivity maps (coils, H, W), (sets, coils, H, W) or (B, sets, coils, H, W), complex.
    image_shape
        (H, W), needed only where neither mask nor maps tell it.
    spatial_dims
        2, or 3 for volumes.
    dtype
        complex64 or complex128, the precision of the operator itself where no maps are given.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import CartesianMRI
    >>> mask = torch.arange(8) % 2 == 0
    >>> operator = CartesianMRI(mask, image_shape=(6, 8))
    >>> operator(torch.ones(1, 1, 6, 8, dtype=torch.complex64)).shape
    torch.Size([1, 1, 6, 8])
    """

    folded_maps: Tensor
    weights: Tensor
    kspace_factor: Tensor
    density: Tensor

    def __init__(
        self,
        mask: Tensor | None = None,
        maps: Tensor | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        spatial_dims: int = 2,
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        grid = _grid(mask, maps, image_shape, spatial_dims)
        device = next((t.device for t in (maps, mask) if t is not None), torch.device("cpu"))
        has_maps = maps is not None
        maps = _full_maps(maps, grid, dtype, device)
        weights = _full_mask(mask, grid, maps.real.dtype, device)
        if 1 < weights.shape[0] != maps.shape[0] > 1:
            raise OperatorError(f"CartesianMRI: mask for a batch of {weights.shape[0]}, maps for {maps.shape[0]}")
        super().__init__(
            (maps.shape[1], *grid),
            (maps.shape[2], *grid),
            image_dtype=torch.complex64,
            data_dtype=torch.complex64,
        )
        binary = bool(((weights == 0) | (weights == 1)).all())
        self.has_maps = has_maps
        self.pinv_kind = "exact" if binary and not has_maps else "iterative"
        self.unitary = not has_maps and bool((weights == 1).all())
        self._axes = tuple(range(-spatial_dims, 0))
        self._varying = tuple(axis for axis in self._axes if weights.shape[axis] > 1)
        ramp = centring_ramp(grid, dtype=maps.dtype).to(device)
        self.register_buffer("folded_maps", maps * ramp)
        self.register_buffer("weights", weights)
        factor = weights[:, None] * (ramp * centring_constant(grid))
        if not ramp.is_complex():
            factor = _pairs(factor.real, 1)
        self.register_buffer("kspace_factor", factor, persistent=False)
        self.register_buffer("density", _pairs(weights[:, None] ** 2, -1), persistent=False)

    def support(self) -> Tensor | None:
        """Return where any coil is sensitive: maps are estimated where there is signal, and zero elsewhere."""
        return (self.folded_maps != 0).any(2) if self.has_maps else None

    @property
    def maps(self) -> Tensor:
        """Coil sensitivity maps (B or 1, sets, coils, *grid); ones for the single-coil operator."""
        ramp = centring_ramp(self.image_shape[1:], dtype=self.folded_maps.dtype)
        return self.folded_maps * ramp.conj().to(self.device)

    @property
    def mask(self) -> Tensor:
        """Sampling mask (B or 1, *grid) as given: 0 and 1, or weights."""
        return self.weights.expand(-1, *self.image_shape[1:])

    def _forward(self, x: Tensor) -> Tensor:
        y = x.new_empty((x.shape[0], *self.data_shape))
        for coils in self._blocks(x):
            part = torch.fft.fftn(self._project_coils(x, coils), dim=self._axes, norm="ortho")
            if self.kspace_factor.is_complex():
                part = part * self.kspace_factor
            else:
                torch.view_as_real(part).mul_(self.kspace_factor)
            y[:, coils] = part
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        image = y.new_zeros((y.shape[0], *self.image_shape))
        conjugated = self.kspace_factor.conj() if self.kspace_factor.is_complex() else _conjugate(self.kspace_factor)
        for coils in self._blocks(y):
            part = y[:, coils]
            if conjugated.is_complex():
                part = torch.conj_physical(part * conjugated)
            else:
                part = torch.view_as_complex(torch.view_as_real(part) * conjugated)
            # IFFT(z) = conj(FFT(conj z)): summing S · conj(…) needs no conjugate maps
            image = self._add_coils(image, torch.fft.fftn(part, dim=self._axes, norm="ortho"), coils)
        return torch.conj_physical(image)

    def _gram(self, x: Tensor) -> Tensor:
        image = torch.zeros_like(x)
        for coils in self._blocks(x):
            part = self._transform(self._project_coils(x, coils))
            torch.view_as_real(part).mul_(self.density)  # weights² and, for what follows, the conjugate
            image = self._add_coils(image, self._transform(part), coils)
        return torch.conj_physical(image)

    def _transform(self, part: Tensor) -> Tensor:
        """Transform along the axes on which the mask varies: along the others F^H F cancels."""
        return torch.fft.fftn(part, dim=self._varying, norm="ortho") if self._varying else part

    def _project_coils(self, x: Tensor, coils: slice) -> Tensor:
        """Return Σ_s S_{s,c} x_s for a block of coils, (B, block, *grid)."""
        part = self.folded_maps[:, 0, coils] * x[:, :1]
        for index in range(1, x.shape[1]):
            part = torch.addcmul(part, self.folded_maps[:, index, coils], x[:, index : index + 1])
        return part

    def _add_coils(self, image: Tensor, part: Tensor, coils: slice) -> Tensor:
        """Add Σ_c S_{s,c} part_c to every set s of the image."""
        maps = self.folded_maps[:, :, coils]
        if part.shape[1] == 1:
            return image.addcmul_(maps[:, :, 0], part)
        return image.add_((maps * part[:, None]).sum(2))

    def _blocks(self, x: Tensor) -> Iterator[slice]:
        coils = self.data_shape[0]
        samples = max(x.shape[0] * math.prod(x.shape[2:]), 1)
        size = max(1, (_CPU_BLOCK if x.device.type == "cpu" else _GPU_BLOCK) // samples)
        return (slice(start, min(start + size, coils)) for start in range(0, coils, size))

    def norm_bound(self) -> Tensor:
        """Return max_k M · max_r sqrt(‖G(r)‖_∞), G the Gram matrix of the map sets at a pixel; ≥ ‖A‖."""
        maps = self.folded_maps
        rows = [
            sum((maps[:, s] * maps[:, t].conj()).sum(1).abs() for t in range(maps.shape[1]))
            for s in range(maps.shape[1])
        ]
        gain = torch.stack([torch.as_tensor(row) for row in rows]).amax(0).flatten(1).amax(1)
        return gain.sqrt() * self.weights.flatten(1).amax(1)

    def config(self) -> dict[str, Any]:
        """Return name and grid; mask and maps are tensors."""
        return {"operator": "cartesian-mri", "image_shape": list(self.image_shape[1:])}

    def tensors(self) -> dict[str, Tensor]:
        """Return the mask and, where the operator has them, the maps."""
        return {"mask": self.mask, "maps": self.maps} if self.has_maps else {"mask": self.mask}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the operator."""
        grid = tuple(config["image_shape"])
        return cls(tensors["mask"], tensors.get("maps"), image_shape=grid, spatial_dims=len(grid))


def _pairs(values: Tensor, sign: int) -> Tensor:
    """Return (…, 2) factors (v, sign · v) for the real view of a complex tensor: a multiplication in place."""
    return torch.stack((values, sign * values), dim=-1)


def _conjugate(pairs: Tensor) -> Tensor:
    """Flip the sign of the second of each pair of factors: the product comes out conjugated."""
    return pairs * pairs.new_tensor([1, -1])


def _grid(
    mask: Tensor | None, maps: Tensor | None, image_shape: tuple[int, ...] | None, spatial_dims: int
) -> tuple[int, ...]:
    if spatial_dims not in (2, 3):
        raise OperatorError(f"CartesianMRI: spatial_dims must be 2 or 3, got {spatial_dims}")
    if image_shape is not None:
        grid = tuple(image_shape)
    elif maps is not None:
        grid = tuple(maps.shape[-spatial_dims:])
    elif mask is not None and mask.ndim >= spatial_dims:
        grid = tuple(mask.shape[-spatial_dims:])
    else:
        raise OperatorError("CartesianMRI: neither maps nor a full mask tell the matrix size; give image_shape")
    if len(grid) != spatial_dims:
        raise OperatorError(f"CartesianMRI: image_shape {grid} does not have {spatial_dims} axes")
    return grid


def _full_maps(maps: Tensor | None, grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return maps as (B, sets, coils, *grid)."""
    if maps is None:
        return torch.ones((1, 1, 1, *grid), dtype=dtype, device=device)
    lead = maps.ndim - len(grid)
    if lead not in (1, 2, 3) or tuple(maps.shape[-len(grid) :]) != grid or not maps.is_complex():
        axes = ", ".join(map(str, grid))
        raise OperatorError(
            f"CartesianMRI: expected complex maps (coils, {axes}), (sets, coils, {axes}) or (batch, sets, coils, "
            f"{axes}), got {tuple(maps.shape)} {maps.dtype}"
        )
    return maps.reshape(*[1] * (3 - lead), *maps.shape)


def _full_mask(mask: Tensor | None, grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the mask as (B, *grid) with size 1 along the axes on which it is constant."""
    if mask is None:
        return torch.ones((1, *[1] * len(grid)), dtype=dtype, device=device)
    if mask.is_complex() or not bool((mask >= 0).all()) or not bool(torch.isfinite(mask).all()):
        raise OperatorError("CartesianMRI: expected a mask of 0 and 1 or of non-negative weights")
    batch = mask.shape[0] if mask.ndim == len(grid) + 1 else 1
    try:
        full = mask.expand(batch, *grid)
    except RuntimeError as error:
        raise OperatorError(
            f"CartesianMRI: a mask of shape {tuple(mask.shape)} does not broadcast to (batch, "
            f"{', '.join(map(str, grid))})"
        ) from error
    if not bool((full > 0).any()):
        raise OperatorError("CartesianMRI: the mask keeps no sample at all")
    for axis in range(1, full.ndim):
        first = full.narrow(axis, 0, 1)
        if bool((full == first).all()):
            full = first
    return full.to(dtype).clone()
