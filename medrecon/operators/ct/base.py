"""What the X-ray transforms share: the grid, units, filtered back-projection as a start, the norm."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.autograd import apply_linear
from medrecon.operators.base import LinearOperator
from medrecon.operators.composition import Weighted
from medrecon.operators.ct.backends import run
from medrecon.operators.ct.filters import Window, filter_sinogram
from medrecon.operators.ct.noise import ray_weights
from medrecon.operators.ct.pixel_torch import PixelGrid
from medrecon.operators.solvers import inner, per_sample

SHORTEST, LONGEST = 1e-9, 1e9
"""Lengths in mm beyond which a number is a mistake."""

_MANY_TURNS = 40.0
_logger = logging.getLogger("medrecon")

OVERSAMPLING = 2
"""Values between two bins of a filtered view, plus one, from which back-projection interpolates linearly."""


class PixelGeometry(NamedTuple):
    """How pixels are seen: ``frames`` (1 or B, views, 4), the rest mostly as in ``pixel_torch.PixelGrid``.

    ``pitch`` is that of the bins at the axis, ``fan_angle`` the angle between bins on an arc, else 0.
    """

    frames: Tensor
    kind: int
    orbit: float
    scale: float
    zero: float
    pitch: float
    fan_angle: float = 0.0


class XRayTransform(LinearOperator):
    r"""Line integrals through a slice, :math:`y_{tk} = \int x\,\mathrm{d}l` along ray k of view t.

    Images are (C, H, W) on square pixels, attenuation in 1/mm; sinograms (C, views, bins) have no unit.
    The centre of column j lies at X = (j - (W-1)/2) · pixel + cx and that of row i at
    Y = ((H-1)/2 - i) · pixel + cy in mm, Y upwards, the rotation axis at (0, 0). Angles are radians,
    counter-clockwise. With ``pixel_size=1`` lengths are pixels and attenuation is per pixel. A
    volume is a stack of slices: over the batch or over the channels.

    The adjoint is the exact transpose. There is no closed-form pseudo-inverse: filtered
    back-projection (:meth:`filtered_backprojection`, which is also :meth:`initial`) is an approximation,
    and ``pinv`` runs conjugate gradients.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1.
    angles
        Radians, (views,) or, one list a sample, (B, views).
    detector_count
        Bins.
    detector_pitch
        Distance of the bins in mm, at the detector.
    pixel_size
        In mm.
    detector_offset
        In mm at the detector: the middle of the detector lies there, + along +u.
    center_of_rotation
        In mm at the rotation axis: where the axis is seen, relative to the central ray, + along +u.
    image_center
        (cx, cy) in mm.
    """

    angles: Tensor
    pinv_kind = "approximate"

    def __init__(
        self,
        image_shape: tuple[int, ...],
        angles: Tensor,
        *,
        detector_count: int,
        detector_pitch: float,
        pixel_size: float,
        detector_offset: float,
        center_of_rotation: float,
        image_center: tuple[float, float],
    ) -> None:
        name = type(self).__name__
        channels, height, width = checked_image_shape(name, image_shape)
        angles = _angles(name, angles)
        if detector_count < 1:
            raise OperatorError(f"{name}: detector_count must be at least 1, got {detector_count}")
        lengths = {"pixel_size": pixel_size, "detector_pitch": detector_pitch}
        for what, length in lengths.items():
            if not SHORTEST <= length <= LONGEST:
                raise OperatorError(
                    f"{name}: {what} must be a positive length in mm, {SHORTEST:g} to {LONGEST:g}, got {length}"
                )
        shifts = (detector_offset, center_of_rotation, *image_center)
        if not all(abs(shift) <= LONGEST for shift in shifts) or len(image_center) != 2:
            raise OperatorError(
                f"{name}: detector_offset, center_of_rotation and image_center (x, y) must be finite, at most "
                f"{LONGEST:g} mm, got {shifts}"
            )
        super().__init__((channels, height, width), (channels, angles.shape[1], detector_count))
        self.detector_count = int(detector_count)
        self.detector_pitch = float(detector_pitch)
        self.pixel_size = float(pixel_size)
        self.detector_offset = float(detector_offset)
        self.center_of_rotation = float(center_of_rotation)
        self.image_center = (float(image_center[0]), float(image_center[1]))
        self.register_buffer("angles", angles)

    @abstractmethod
    def _weighted(self, y: Tensor) -> Tensor:
        """Return sinograms times the measure of their rays, so that filtering and summing them up is the inverse."""

    @abstractmethod
    def _pixel_geometry(self) -> PixelGeometry:
        """Return how pixels are seen by the views."""

    def filtered_backprojection(self, y: Tensor, *, window: Window = "ram-lak") -> Tensor:
        """Return the filtered back-projection of sinograms, images (B, C, H, W) in 1/mm.

        Parameters
        ----------
        y
            (B, C, views, bins).
        window
            Apodisation of the ramp filter, see :func:`medrecon.operators.ct.filters.ramp_filter`.
        """
        y = self._as_data(y)
        seen = self._pixel_geometry()
        with torch.autocast(device_type=y.device.type, enabled=False):
            filtered = filter_sinogram(
                self._weighted(y), seen.pitch, window, fan_angle=seen.fan_angle, oversampling=OVERSAMPLING
            )
            return apply_linear(filtered, self._pixel_backproject, self._pixel_project)

    def _pixel_grid(self) -> PixelGrid:
        """Return the grid for oversampled bins."""
        seen, (height, width), (x, y) = self._pixel_geometry(), self.image_shape[1:], self.image_center
        return PixelGrid(
            kind=seen.kind,
            orbit=seen.orbit,
            scale=seen.scale * OVERSAMPLING,
            zero=seen.zero * OVERSAMPLING,
            x0=x - (width - 1) / 2 * self.pixel_size,
            y0=y + (height - 1) / 2 * self.pixel_size,
            pixel=self.pixel_size,
        )

    def _pixel_backproject(self, y: Tensor) -> Tensor:
        frames, grid = self._pixel_geometry().frames, self._pixel_grid()
        groups = zip(self._groups(y, frames), frames, strict=True)
        images = [run("pixel", "backproject", group, views, grid, *self.image_shape[1:]) for group, views in groups]
        return torch.cat(images).view(y.shape[0], *self.image_shape)

    def _pixel_project(self, x: Tensor) -> Tensor:
        frames, grid = self._pixel_geometry().frames, self._pixel_grid()
        groups, bins = zip(self._groups(x, frames), frames, strict=True), self.detector_count * OVERSAMPLING
        parts = [run("pixel", "project", group, views, grid, bins) for group, views in groups]
        return torch.cat(parts).view(x.shape[0], *self.data_shape[:2], bins)

    @property
    def turns(self) -> float:
        """Turns that the views cover, 0.5 for half a one."""
        views = self.angles.shape[1]
        ordered = self.angles[0].sort().values
        return float(ordered[-1] - ordered[0]) * views / max(views - 1, 1) / (2 * math.pi)

    def initial(self, y: Tensor) -> Tensor:
        """Return the filtered back-projection."""
        return self.filtered_backprojection(y)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the operator from its geometry and its angles."""
        geometry = {name: value for name, value in config.items() if name not in ("operator", "image_shape")}
        geometry["image_center"] = tuple(config["image_center"])
        build: Any = cls  # the two geometries take different lengths
        operator: Self = build(tuple(config["image_shape"]), tensors["angles"], **geometry)
        return operator

    def whitened(self, y: Tensor) -> tuple[Tensor, LinearOperator]:
        """Return W y and W A with :func:`~medrecon.operators.ct.noise.ray_weights`; y and A where noise is even.

        And where one operator holds several slices (C > 1): they share its norm, so each would depend on the others.
        """
        y = self._as_data(y)
        weights = ray_weights(y.detach()) if self.image_shape[0] == 1 else None
        return (y, self) if weights is None else (y * weights, Weighted(self, weights))

    def _norm_start(self) -> Tensor:
        """Return a constant image, which is near the leading singular vector."""
        return torch.ones((self.batch_size, *self.image_shape), dtype=self.image_dtype, device=self.device)

    def norm(self, *, max_iter: int = 50, tol: float = 1e-6) -> Tensor:
        """Return ‖A‖ by power iteration."""
        x = self._norm_start()
        value = inner(x, x) * 0
        with torch.no_grad():
            for _ in range(max_iter):
                x = x / per_sample(inner(x, x).sqrt().clamp_min(1e-30), x)
                grown = self.gram(x)
                before, value = value, inner(x, grown).real
                x = grown
                if bool((value - before <= tol * value).all()):
                    break
        return value.clamp_min(0).sqrt().to(torch.float32)

    def norm_bound(self) -> Tensor:
        """Return ‖A‖ and 1 % on top: the iteration approaches it from below, here very fast."""
        return self._remembered_bound(lambda: 1.01 * self.norm())

    @staticmethod
    def _groups(x: Tensor, geometry: Tensor) -> Tensor:
        """Return (groups, planes, rows, columns): planes with the same views, all of them or those of a sample."""
        return (x if geometry.shape[0] > 1 else x.flatten(0, 1)[None]).contiguous()

    def _geometry_config(self) -> dict[str, Any]:
        """Return what both geometries have in their ``config()``; the angles are a tensor."""
        return {
            "image_shape": list(self.image_shape),
            "detector_count": self.detector_count,
            "detector_pitch": self.detector_pitch,
            "pixel_size": self.pixel_size,
            "detector_offset": self.detector_offset,
            "center_of_rotation": self.center_of_rotation,
            "image_center": list(self.image_center),
        }


def checked_image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (C, H, W) of (C, H, W) or (H, W), or raise."""
    full = (1, *shape) if len(shape) == 2 else tuple(shape)
    if len(full) != 3 or min(full) < 1:
        raise OperatorError(
            f"{name}: expected an image_shape (C, H, W) or (H, W) of positive sizes, got {tuple(shape)}"
        )
    return full


def _angles(name: str, angles: Tensor) -> Tensor:
    """Return angles as float64 (1 or B, views)."""
    angles = torch.as_tensor(angles)
    full = angles[None] if angles.ndim == 1 else angles
    if full.ndim != 2 or 0 in full.shape or full.is_complex():
        raise OperatorError(
            f"{name}: expected angles in radians of shape (views,) or (batch, views), got {tuple(angles.shape)}"
        )
    full = full.to(torch.float64, copy=True)
    if not bool(torch.isfinite(full).all()):
        raise OperatorError(f"{name}: the angles hold NaN or Inf; expected radians")
    largest = float(full.abs().max())
    if largest > _MANY_TURNS:
        _logger.warning(
            "%s: the angles go to %.4g, which is %.0f turns if they are radians: are they degrees? (torch.deg2rad)",
            name,
            largest,
            largest / (2 * math.pi),
        )
    return full
