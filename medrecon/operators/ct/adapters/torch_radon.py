"""torch-radon's projectors behind our geometries: an optional CUDA package under the GPLv3, imported on first use.

torch-radon counts in pixels and knows neither shifts nor more than one list of angles an object. Row 0 is on
top and an angle t means the same as here, although its y-axis points down: version 1 stores -t, and
version 2 turns the other way in its kernels.
"""

import contextlib
import io
import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from medrecon.errors import OperatorError, UsageError
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.fan_beam import DetectorShape, FanBeam2D
from medrecon.operators.ct.parallel_beam import ParallelBeam2D
from medrecon.operators.registry import register_operator

_DEVICE = "cuda"  # the only kind of device that torch-radon runs on
_MOST_VIEWS = 4096  # its back-projection keeps that many sines and cosines


class _TorchRadon(XRayTransform):
    """Slices through an object of torch-radon, built on first use and again in copies and pickles."""

    adjoint_matched = False
    _radon: Any = None

    @abstractmethod
    def _build(self, package: Any, angles: Tensor) -> Any:  # noqa: ANN401 (a module without types and its object)
        """Return the object of torch_radon that measures this geometry."""

    def _forward(self, x: Tensor) -> Tensor:
        radon = self._object(x)
        y = radon.forward(x.detach().to(torch.float32).flatten(0, 1).contiguous())
        return y.to(x.dtype).view(-1, *self.data_shape) * self.pixel_size

    def _adjoint(self, y: Tensor) -> Tensor:
        radon = self._object(y)
        planes = y.detach().to(torch.float32).flatten(0, 1).contiguous()
        if hasattr(radon, "backprojection"):
            x = radon.backprojection(planes)
        else:  # version 2 takes the size from the latest forward call, which may have been another operator's
            radon.volume.set_size(*self.image_shape[1:])
            x = radon.backward(planes)
        return x.to(y.dtype).view(-1, *self.image_shape) * self.pixel_size

    def _object(self, x: Tensor) -> Any:  # noqa: ANN401 (of a package without types)
        name = type(self).__name__
        if x.device.type != _DEVICE:
            raise OperatorError(
                f"{name}: torch-radon runs on CUDA only, got a tensor on {x.device}; move operator and tensor with "
                '.to("cuda"), or take ct-parallel or ct-fan, which run anywhere'
            )
        if self._radon is None:
            # its fast sine and cosine are accurate within a half turn
            angles = (self.angles[0] + math.pi).remainder(2 * math.pi) - math.pi
            package = _import_torch_radon(name)
            try:
                self._radon = self._build(package, angles.to(torch.float32))
            except NameError as error:  # version 1 without its compiled half
                raise UsageError(_broken(name, error)) from error
        return self._radon

    def _check(self) -> None:
        """Refuse what torch-radon cannot measure."""
        name = type(self).__name__
        shifts = {
            "detector_offset": self.detector_offset,
            "center_of_rotation": self.center_of_rotation,
            "image_center": self.image_center,
        }
        for what, shift in shifts.items():
            if shift not in (0, (0, 0)):
                raise OperatorError(
                    f"{name}: torch-radon's image and detector are centred on the rotation axis, got {what} {shift}; "
                    "use ct-parallel or ct-fan"
                )
        lists, views = self.angles.shape
        if lists > 1 or views > _MOST_VIEWS:
            raise OperatorError(
                f"{name}: torch-radon takes one list of at most {_MOST_VIEWS} angles, got {lists} of {views}; "
                "use ct-parallel or ct-fan"
            )

    def _resolution(self) -> int:
        """Return the size of the image for version 1, which knows only some."""
        height, width = self.image_shape[1:]
        if height != width or height % 16:
            raise OperatorError(
                f"{type(self).__name__}: torch-radon 1 takes square images whose size is a multiple of 16, "
                f"got {height}x{width}; pad the image, install torch-radon 2, or use ct-parallel or ct-fan"
            )
        return height

    def _wrapping(self, radon: Any) -> Self:  # noqa: ANN401 (of a package without types)
        """Use this object; one of version 1 reads its images by a size of its own, which is compared first."""
        if hasattr(radon, "backprojection"):
            if _DEVICE == "cuda" and not torch.cuda.is_available():
                raise OperatorError(
                    f"{type(self).__name__}: torch-radon runs on CUDA only, and there is no CUDA device"
                )
            size = tuple(radon.backprojection(torch.zeros(self.data_shape, device=_DEVICE)).shape[-2:])
            if size != self.image_shape[1:]:
                raise OperatorError(
                    f"{type(self).__name__}: the torch_radon object was made for images of {size}, "
                    f"got image_shape {self.image_shape}"
                )
        self._radon = radon
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_radon": None}  # its textures can be neither copied nor pickled


@register_operator("ct-parallel-torch-radon")
class TorchRadonParallel(_TorchRadon, ParallelBeam2D):
    r"""Parallel-beam X-ray transform by torch-radon, :math:`y_{tk} = \int x\,\mathrm{d}l`; CUDA only.

    The geometry, units and orientation of :class:`~medrecon.operators.ct.parallel_beam.ParallelBeam2D`
    with a centred image and detector, computed by ``torch_radon.Radon`` (version 1) or
    ``torch_radon.ParallelBeam`` (version 2), whichever is installed; an object that you have already is
    taken by :meth:`wrap`. The adjoint is torch-radon's back-projection, which is no transpose
    (``adjoint_matched`` is False, there is no ``pinv``). Filtered back-projection is that of
    ``ParallelBeam2D`` and does not use torch-radon, whose own filter fails with the torch of today.
    torch-radon computes in single precision, whatever the input has.

    torch-radon is under the GPLv3, is not on the package index and is never installed with this package
    (Ronchetti, arXiv:2009.14788, 2020). Signatures, units, angles and orientation were taken from the
    sources of its versions 1.0, 2.0 and 3.0 (the conda package) and tested on a stand-in with those; the
    library itself has not been run with this class.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1. Version 1 takes square images, multiples of 16.
    angles
        Radians, (views,), at most 4096.
    detector_count
        Bins; None takes as many as cover the diagonal of the image.
    detector_pitch
        In mm; None takes the pixel size.
    pixel_size
        In mm.
    detector_offset, center_of_rotation, image_center
        Must be 0.

    Raises
    ------
    OperatorError
        For a geometry that torch-radon does not have, and for tensors that are not on CUDA.
    UsageError
        On first use, where ``torch_radon`` is missing or broken.
    """

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
        self._check()

    @classmethod
    def wrap(cls, radon: Any, image_shape: tuple[int, ...], *, pixel_size: float = 1.0) -> Self:  # noqa: ANN401
        """Return the operator of your ``torch_radon.Radon`` or ``torch_radon.ParallelBeam``.

        Copies and pickles of the operator build a new object from the geometry.

        Parameters
        ----------
        radon
            With ``clip_to_circle`` off (version 1) and the default volume (version 2).
        image_shape
            (C, H, W), or (H, W) for C = 1, of the images it was made for.
        pixel_size
            In mm; torch-radon itself counts in pixels.
        """
        count, pitch, orbit, _ = _detector_of(cls.__name__, radon)
        if orbit:
            raise OperatorError(f"{cls.__name__}: got a fan-beam object; use TorchRadonFan.wrap")
        operator = cls(
            image_shape,
            _angles_of(radon),
            detector_count=count,
            detector_pitch=pitch * pixel_size,
            pixel_size=pixel_size,
        )
        return operator._wrapping(radon)

    def _build(self, package: Any, angles: Tensor) -> Any:  # noqa: ANN401 (a module without types and its object)
        pitch = self.detector_pitch / self.pixel_size
        if hasattr(package, "ParallelBeam"):
            return package.ParallelBeam(self.detector_count, angles, pitch)
        return package.Radon(self._resolution(), angles, self.detector_count, pitch)

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {**super().config(), "operator": "ct-parallel-torch-radon"}


@register_operator("ct-fan-torch-radon")
class TorchRadonFan(_TorchRadon, FanBeam2D):
    r"""Fan-beam X-ray transform by torch-radon, :math:`y_{tk} = \int x\,\mathrm{d}l`; flat detector, CUDA only.

    The geometry, units and orientation of :class:`~medrecon.operators.ct.fan_beam.FanBeam2D` with a
    centred image and detector, computed by ``torch_radon.RadonFanbeam`` (version 1) or
    ``torch_radon.FanBeam`` (version 2). Filtered back-projection is that of ``FanBeam2D`` and does not
    use torch-radon. For the rest, and for what was not run, see :class:`TorchRadonParallel`.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1. Version 1 takes square images, multiples of 16.
    angles
        β in radians, (views,), at most 4096.
    source_origin, source_detector
        SOD and SDD in mm.
    detector_count, detector_pitch
        Bins and their distance in mm at the detector.
    detector_shape
        ``flat``.
    pixel_size
        In mm.
    detector_offset, center_of_rotation, image_center
        Must be 0.

    Raises
    ------
    OperatorError
        For a geometry that torch-radon does not have, and for tensors that are not on CUDA.
    UsageError
        On first use, where ``torch_radon`` is missing or broken.
    """

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
            source_origin=source_origin,
            source_detector=source_detector,
            detector_count=detector_count,
            detector_pitch=detector_pitch,
            detector_shape=detector_shape,
            pixel_size=pixel_size,
            detector_offset=detector_offset,
            center_of_rotation=center_of_rotation,
            image_center=image_center,
        )
        if detector_shape == "arc":
            raise OperatorError(
                "TorchRadonFan: torch-radon has flat detectors only, got detector_shape 'arc'; use ct-fan"
            )
        self._check()

    @classmethod
    def wrap(cls, radon: Any, image_shape: tuple[int, ...], *, pixel_size: float = 1.0) -> Self:  # noqa: ANN401
        """Return the operator of your ``torch_radon.RadonFanbeam`` or ``torch_radon.FanBeam``.

        Parameters and remarks are those of :meth:`TorchRadonParallel.wrap`.
        """
        count, pitch, orbit, behind = _detector_of(cls.__name__, radon)
        if not orbit:
            raise OperatorError(
                f"{cls.__name__}: got a parallel-beam object of torch_radon; use TorchRadonParallel.wrap"
            )
        operator = cls(
            image_shape,
            _angles_of(radon),
            source_origin=orbit * pixel_size,
            source_detector=(orbit + behind) * pixel_size,
            detector_count=count,
            detector_pitch=pitch * pixel_size,
            pixel_size=pixel_size,
        )
        return operator._wrapping(radon)

    def _build(self, package: Any, angles: Tensor) -> Any:  # noqa: ANN401 (a module without types and its object)
        pitch, orbit = self.detector_pitch / self.pixel_size, self.source_origin / self.pixel_size
        behind = (self.source_detector - self.source_origin) / self.pixel_size
        if hasattr(package, "FanBeam"):
            return package.FanBeam(self.detector_count, angles, orbit, behind, pitch)
        return package.RadonFanbeam(self._resolution(), angles, orbit, behind, self.detector_count, pitch)

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {**super().config(), "operator": "ct-fan-torch-radon"}


def _import_torch_radon(name: str) -> Any:  # noqa: ANN401 (a module without types)
    """Return the module, or raise; without its compiled half it prints a line and fails later, by a NameError."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import torch_radon
    except (ImportError, NameError) as error:
        raise UsageError(_broken(name, error)) from error
    backend = getattr(torch_radon, "cuda_backend", None)
    if hasattr(torch_radon, "ParallelBeam") and backend is not None and not hasattr(backend, "backward"):
        raise UsageError(
            f"{name}: this torch_radon cannot back-project (the last commits of its branch v2 took that out); "
            "install version 1 or carterbox/torch-radon 3"
        )
    return torch_radon


def _broken(name: str, error: Exception) -> str:
    return (
        f"{name}: torch_radon cannot be imported ({type(error).__name__}: {error}); it is not on the package index: "
        "build https://github.com/matteo-ronchetti/torch-radon for your torch and CUDA (version 2 also wants Tk), "
        "or use ct-parallel or ct-fan, which need neither"
    )


def _angles_of(radon: Any) -> Tensor:  # noqa: ANN401 (of a package without types)
    """Return the angles that an object was made with; version 1 keeps them negated."""
    angles: Tensor = radon.angles.cpu().to(torch.float64)
    return -angles if hasattr(radon, "backprojection") else angles


def _detector_of(name: str, radon: Any) -> tuple[int, float, float, float]:  # noqa: ANN401 (of a package without types)
    """Return bins, pitch, and the distances of source and detector in pixels, 0 for parallel beams."""
    if hasattr(radon, "backprojection"):
        return (
            radon.det_count,
            radon.det_spacing,
            getattr(radon, "source_distance", 0.0),
            getattr(radon, "det_distance", 0.0),
        )
    projection = getattr(radon, "projection", None)
    projection = getattr(projection, "cfg", projection)  # version 3 wraps it once more
    if projection is None or not hasattr(radon, "backward"):
        raise UsageError(f"{name}: expected an object of torch_radon, got {type(radon).__name__}")
    volume = radon.volume
    if tuple(volume.voxel_size) != (1, 1) or any(getattr(volume, "center", (0, 0))):
        raise OperatorError(
            f"{name}: expected a torch_radon object for slices, with centred voxels of size 1 (its back-projection "
            f"misplaces others), got voxel_size {tuple(volume.voxel_size)}; give the size here, as pixel_size"
        )
    suffix = "" if hasattr(projection, "det_count") else "_u"
    return (
        getattr(projection, f"det_count{suffix}"),
        getattr(projection, f"det_spacing{suffix}"),
        getattr(projection, "s_dist", 0.0),
        getattr(projection, "d_dist", 0.0),
    )
