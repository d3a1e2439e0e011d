"""Fan-beam X-ray transform of slices."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from medrecon.errors import OperatorError
from medrecon.operators.ct.base import LONGEST, SHORTEST, PixelGeometry, XRayTransform
from medrecon.operators.ct.fan_ops import fan_backprojection, fan_projection
from medrecon.operators.ct.fan_weights import redundancy_weights
from medrecon.operators.registry import register_operator

DetectorShape = Literal["flat", "arc"]


@register_operator("ct-fan")
class FanBeam2D(XRayTransform):
    r"""Line integrals along the rays of a fan, :math:`y_{tk} = \int x\,\mathrm{d}l` from the source to bin k.

    At the angle β the source is at SOD (sin β, -cos β), the detector opposite at the distance SDD with its
    axis +u = (cos β, sin β). Bin k lies at u_k = (k - (bins-1)/2) · pitch + detector_offset: on the detector if
    it is flat, at the fan angle γ = u_k / SDD if it is an arc around the source. ``center_of_rotation``
    moves source and detector together by that much against +u. The model is Joseph's. See
    :class:`~medrecon.operators.ct.base.XRayTransform` for grid, units and the other parameters.

    Filtered back-projection takes a full turn, or a shorter scan by Parker's weights.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1.
    angles
        β in radians, (views,) or, one list a sample, (B, views).
    source_origin, source_detector
        SOD and SDD in mm.
    detector_count, detector_pitch
        Bins and their distance in mm at the detector, for an arc along it.
    detector_shape
        ``flat`` or ``arc``.
    pixel_size, detector_offset, center_of_rotation, image_center
        In mm.

    Examples
    --------
    >>> import torch
    >>> from medrecon.operators import FanBeam2D
    >>> angles = torch.arange(90) * torch.pi / 45
    >>> operator = FanBeam2D(
    ...     (32, 32), angles, source_origin=64, source_detector=128, detector_count=60, detector_pitch=2
    ... )
    >>> operator(torch.ones(1, 1, 32, 32)).shape
    torch.Size([1, 1, 90, 60])
    """

    sources: Tensor
    directions: Tensor
    frames: Tensor

    def __init__(
        self,
        image_shape: tuple[int, ...],
        angles: Tensor,
        *,
        source_origin: float,
        source_detector: float,
        detector_count: int,
        detector_pitch: float,
        detector_shape: DetectorShape = "flat",
        pixel_size: float = 1.0,
        detector_offset: float = 0.0,
        center_of_rotation: float = 0.0,
        image_center: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        super().__init__(
            image_shape,
            angles,
            detector_count=detector_count,
            detector_pitch=detector_pitch,
            pixel_size=pixel_size,
            detector_offset=detector_offset,
            center_of_rotation=center_of_rotation,
            image_center=image_center,
        )
        if detector_shape not in get_args(DetectorShape):
            raise OperatorError(f"FanBeam2D: detector_shape must be flat or arc, got {detector_shape!r}")
        if not SHORTEST <= source_origin < source_detector <= LONGEST:
            raise OperatorError(
                "FanBeam2D: expected 0 < source_origin < source_detector in mm (source to axis, source to detector), "
                f"got {source_origin} and {source_detector}"
            )
        self.source_origin = float(source_origin)
        self.source_detector = float(source_detector)
        self.detector_shape: DetectorShape = detector_shape
        self._check_room()
        sources, directions, frames = self._rays()
        self.register_buffer("sources", sources, persistent=False)
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("frames", frames, persistent=False)

    def _check_room(self) -> None:
        corner = math.hypot(*self.image_shape[1:]) / 2 * self.pixel_size + math.hypot(*self.image_center)
        if corner >= self.source_origin:
            raise OperatorError(
                f"FanBeam2D: the image reaches {corner:.4g} mm from the rotation axis, but the source passes at "
                f"{self.source_origin:.4g} mm; are pixel_size and source_origin in the same unit?"
            )
        widest = float(self._fan_angles().abs().max())
        if widest >= math.pi / 2:
            raise OperatorError(
                f"FanBeam2D: the fan would open {math.degrees(widest):.0f} degrees to one side; expected less than 90. "
                "Is detector_pitch in mm?"
            )

    def _rays(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return sources and directions in pixels from the image, frames (source, detector axis) in mm."""
        c, s = self.angles.cos(), self.angles.sin()
        c, s = torch.where(c.abs() < 1e-12, 0, c), torch.where(s.abs() < 1e-12, 0, s)
        axis, ahead = torch.stack((c, s), 2), torch.stack((-s, c), 2)
        source = -self.source_origin * ahead - self.center_of_rotation * axis
        gamma = self._fan_angles()[:, None]
        directions = torch.sin(gamma) * axis[:, :, None] + torch.cos(gamma) * ahead[:, :, None]
        middle = torch.tensor(self.image_center, dtype=torch.float64)
        return (source - middle) / self.pixel_size, directions, torch.cat((source, axis), 2)

    def _fan_angles(self) -> Tensor:
        """Return γ of every bin, (bins,) float64."""
        k = torch.arange(self.detector_count, dtype=torch.float64) - (self.detector_count - 1) / 2
        u = (k * self.detector_pitch + self.detector_offset) / self.source_detector
        return u if self.detector_shape == "arc" else torch.atan(u)

    def _forward(self, x: Tensor) -> Tensor:
        groups = zip(self._groups(x, self.sources), self.sources, self.directions, strict=True)
        projected = [fan_projection(*group) for group in groups]
        return torch.cat(projected).view(x.shape[0], *self.data_shape).mul_(self.pixel_size)

    def _adjoint(self, y: Tensor) -> Tensor:
        groups = zip(self._groups(y, self.sources), self.sources, self.directions, strict=True)
        images = [fan_backprojection(*group, *self.image_shape[1:]) for group in groups]
        return torch.cat(images).view(y.shape[0], *self.image_shape).mul_(self.pixel_size)

    def _weighted(self, y: Tensor) -> Tensor:
        """Multiply by cos γ and the share of every ray of its line (Kak and Slaney, equations 3.103 and 3.136)."""
        gamma = self._fan_angles().to(self.device)
        return y * (redundancy_weights(self.angles, gamma) * torch.cos(gamma)).to(y)[:, None]

    def _pixel_geometry(self) -> PixelGeometry:
        arc = self.detector_shape == "arc"
        return PixelGeometry(
            frames=self.frames,
            kind=2 if arc else 1,
            orbit=self.source_origin,
            scale=self.source_detector / self.detector_pitch,
            zero=(self.detector_count - 1) / 2 - self.detector_offset / self.detector_pitch,
            pitch=self.detector_pitch * self.source_origin / self.source_detector,
            fan_angle=self.detector_pitch / self.source_detector if arc else 0.0,
        )

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {
            "operator": "ct-fan",
            **self._geometry_config(),
            "source_origin": self.source_origin,
            "source_detector": self.source_detector,
            "detector_shape": self.detector_shape,
        }
