"""Parallel-beam X-ray transform of slices."""

import math
from typing import Any

import torch
from torch import Tensor

from medrecon.operators.ct.base import PixelGeometry, XRayTransform, checked_image_shape
from medrecon.operators.ct.parallel_ops import parallel_backprojection, parallel_projection
from medrecon.operators.registry import register_operator


@register_operator("ct-parallel")
class ParallelBeam2D(XRayTransform):
    r"""Line integrals along parallel rays, :math:`y_{tk} = \int x(X, Y)\,\mathrm{d}l` on X cos t + Y sin t = u_k.

    Bin k lies at u_k = (k - (bins-1)/2) · pitch + detector_offset - center_of_rotation. Any list of
    angles will do. On the CPU it is Joseph's model evaluated as sums of sheared lines, about 15 times
    as fast as ASTRA's CPU projector (``benchmarks/ct_projectors.py``); on CUDA the same model by gathers. Both
    directions are exact transposes of each other. See :class:`~medrecon.operators.ct.base.XRayTransform`
    for grid, units and all parameters.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1.
    angles
        Radians, (views,) or, one list a sample, (B, views).
    detector_count
        Bins; None takes as many as cover the diagonal of the image.
    detector_pitch
        In mm; None takes the pixel size.
    pixel_size, detector_offset, center_of_rotation, image_center
        In mm.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import ParallelBeam2D
    >>> operator = ParallelBeam2D((64, 64), torch.arange(60) * torch.pi / 60, pixel_size=0.7)
    >>> operator(torch.ones(1, 1, 64, 64)).shape
    torch.Size([1, 1, 60, 92])
    """

    views: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        angles: Tensor,
        *,
        detector_count: int | None = None,
        detector_pitch: float | None = None,
        pixel_size: float = 1.0,
        detector_offset: float = 0.0,
        center_of_rotation: float = 0.0,
        image_center: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        _, height, width = checked_image_shape("ParallelBeam2D", image_shape)
        pitch = pixel_size if detector_pitch is None else detector_pitch
        if detector_count is None and pitch > 0:
            detector_count = math.ceil(math.hypot(height, width) * pixel_size / pitch) + 1
        super().__init__(
            image_shape,
            angles,
            detector_count=detector_count or 0,
            detector_pitch=pitch,
            pixel_size=pixel_size,
            detector_offset=detector_offset,
            center_of_rotation=center_of_rotation,
            image_center=image_center,
        )
        self.register_buffer("views", self._views(), persistent=False)

    def _views(self) -> Tensor:
        """Return (cos t, sin t, u0) of all views, (1 or B, views, 3), u0 in pixels from the middle of the image."""
        c, s = self.angles.cos(), self.angles.sin()
        c, s = torch.where(c.abs() < 1e-7, 0, c), torch.where(s.abs() < 1e-7, 0, s)
        first = self.detector_offset - self.center_of_rotation - (self.detector_count - 1) / 2 * self.detector_pitch
        x, y = self.image_center
        return torch.stack((c, s, (first - x * c - y * s) / self.pixel_size), dim=2)

    def _forward(self, x: Tensor) -> Tensor:
        pitch = self.detector_pitch / self.pixel_size
        groups = zip(self._groups(x, self.views), self.views, strict=True)
        projected = [parallel_projection(images, views, pitch, self.detector_count) for images, views in groups]
        return torch.cat(projected).view(x.shape[0], *self.data_shape).mul_(self.pixel_size)

    def _adjoint(self, y: Tensor) -> Tensor:
        pitch = self.detector_pitch / self.pixel_size
        groups = zip(self._groups(y, self.views), self.views, strict=True)
        images = [parallel_backprojection(group, views, pitch, *self.image_shape[1:]) for group, views in groups]
        return torch.cat(images).view(y.shape[0], *self.image_shape).mul_(self.pixel_size)

    def _weighted(self, y: Tensor) -> Tensor:
        """Multiply every view by its share of the half turn."""
        return y * angular_weights(self.angles).to(y)[:, None, :, None]

    def _pixel_geometry(self) -> PixelGeometry:
        c, s, _ = self.views.unbind(2)
        none = torch.zeros_like(c)
        return PixelGeometry(
            frames=torch.stack((none, none, c, s), 2),
            kind=0,
            orbit=0.0,
            scale=1 / self.detector_pitch,
            zero=(self.detector_count - 1) / 2 - (self.detector_offset - self.center_of_rotation) / self.detector_pitch,
            pitch=self.detector_pitch,
        )

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {"operator": "ct-parallel", **self._geometry_config()}


def angular_weights(angles: Tensor) -> Tensor:
    """Return Δt of every view of parallel beams, shape as the angles (B, views): half of both gaps to its neighbours.

    Opposite views measure the same lines, so angles count modulo π and views that coincide share
    their gap. A gap of more than three times the median is taken for a missing wedge: nobody
    stands in for it.
    """
    same = 0.01 * math.pi / angles.shape[1]  # views closer than this coincide; angles may come from single precision
    order = angles.remainder(math.pi)
    order = torch.where(order > math.pi - same, order - math.pi, order)
    sorted_angles, index = order.sort(dim=1)
    gaps = torch.diff(sorted_angles, dim=1, append=sorted_angles[:, :1] + math.pi)
    distinct = torch.where(gaps > same, gaps, torch.nan)
    usual = distinct.nanmedian(dim=1, keepdim=True).values.nan_to_num(math.pi)
    gaps = torch.where(gaps > 3 * usual, usual, gaps)
    weights = (gaps + gaps.roll(1, dims=1)) / 2
    return torch.empty_like(weights).scatter_(1, index, weights)
