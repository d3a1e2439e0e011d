"""ASTRA's projectors behind our geometries: an optional package under the GPLv3, imported when one is built."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from medrecon.errors import OperatorError, UsageError
from medrecon.operators.ct.base import XRayTransform
from medrecon.operators.ct.fan_beam import DetectorShape, FanBeam2D
from medrecon.operators.ct.parallel_beam import ParallelBeam2D
from medrecon.operators.registry import register_operator


class _Astra(XRayTransform):
    """Slices through ASTRA in pixels from the middle of the image, one projector a list of angles.

    A projector lives as long as a call: ASTRA keeps its objects in a table of its own, where copies
    and pickles of the operator could not follow.
    """

    _geometry: ClassVar[str]
    _cpu_projector: ClassVar[str]

    @property
    def adjoint_matched(self) -> bool:  # type: ignore[override]  # depends on where the operator is
        """Whether the adjoint is the transpose: of the CPU projectors, not of the CUDA projector."""
        return self.device.type == "cpu"

    @abstractmethod
    def _vectors(self) -> Tensor:
        """Return (1 or B, views, 6): ray or source, middle of the detector, step from bin to bin; in pixels."""

    def _frame(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the axis of the detector and the direction of the beam, (1 or B, views, 2), and the image's middle."""
        c, s = self.angles.cos(), self.angles.sin()
        return torch.stack((c, s), 2), torch.stack((-s, c), 2), self.angles.new_tensor(self.image_center)

    def _forward(self, x: Tensor) -> Tensor:
        return self._through("direct_FP", x, self.data_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._through("direct_BP", y, self.image_shape)

    def _through(self, function: str, given: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Apply a function of ``astra.projector`` slice by slice, in ASTRA's single precision."""
        name = type(self).__name__
        astra = import_astra(name)
        on_gpu = given.device.type == "cuda"
        if given.device.type != "cpu" and not (on_gpu and astra.use_cuda()):
            raise OperatorError(
                f"{name}: this ASTRA finds no CUDA device, got a tensor on {given.device}; "
                "move operator and tensor to the CPU, or take ct-parallel or ct-fan, which run there"
            )
        groups = self._groups(given.detach().to(torch.float32), self.angles)
        result = groups.new_zeros((*groups.shape[:2], *shape[1:]))
        if on_gpu:
            torch.cuda.current_stream(given.device).synchronize()  # ASTRA knows nothing of torch's streams
        for planes, targets, vectors in zip(groups, result, self._vectors(), strict=True):
            with self._projector(astra, vectors, given.device) as projector:
                for plane, target in zip(planes, targets, strict=True):
                    getattr(astra.projector, function)(projector, plane, out=target)
        if on_gpu:
            torch.cuda.synchronize(given.device)
        return result.view(-1, *shape).to(given.dtype).mul_(self.pixel_size)

    @contextmanager
    def _projector(self, astra: Any, vectors: Tensor, device: torch.device) -> Iterator[int]:  # noqa: ANN401 (a module)
        geometry = astra.create_proj_geom(self._geometry, self.detector_count, vectors.cpu().numpy())
        volume = astra.create_vol_geom(*self.image_shape[1:])
        kind, options = self._cpu_projector, {}
        if device.type == "cuda":
            kind, options = "cuda", {"GPUindex": device.index or 0}
        try:
            projector = astra.create_projector(kind, geometry, volume, options)
        except astra.log.AstraError as error:
            raise OperatorError(f"{type(self).__name__}: ASTRA refuses this geometry: {error}") from error
        try:
            yield projector
        except astra.log.AstraError as error:
            raise OperatorError(f"{type(self).__name__}: ASTRA's projector {kind!r} failed: {error}") from error
        finally:
            astra.projector.delete(projector)


@register_operator("ct-parallel-astra")
class AstraParallel2D(_Astra, ParallelBeam2D):
    r"""Parallel-beam X-ray transform by the ASTRA Toolbox, :math:`y_{tk} = \int x\,\mathrm{d}l`.

    The same operator as :class:`~medrecon.operators.ct.parallel_beam.ParallelBeam2D`, by another projector.
    On the CPU that is ``linear``, which is Joseph's model too, with an exact adjoint. On CUDA it is ASTRA's
    ``cuda``, whose back-projection is pixel-driven: ``adjoint_matched`` is False there. The CUDA path was
    written after ASTRA's documentation and has not been run. Move an operator before you compose it:
    compositions ask for ``adjoint_matched`` once. Filtered back-projection is that of ``ParallelBeam2D``
    and does not use ASTRA.

    ASTRA computes in single precision: double-precision input gives double-precision tensors with
    single-precision errors. Pass ``tol_double=1e-6`` to
    :func:`~medrecon.testing.assert_linear_operator`.

    It needs the package astra-toolbox, 2.5 or later, which is under the GPLv3:
    ``pip install "medrecon[astra]"`` (van Aarle et al., Optics Express 24:25129, 2016).

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

    Raises
    ------
    UsageError
        Where ASTRA is missing or too old.
    """

    _geometry = "parallel_vec"
    _cpu_projector = "linear"

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
        import_astra("AstraParallel2D")
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

    def _vectors(self) -> Tensor:
        axis, ahead, image = self._frame()
        middle = (self.detector_offset - self.center_of_rotation) * axis - image
        return torch.cat((ahead, middle / self.pixel_size, axis * (self.detector_pitch / self.pixel_size)), 2)

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {**super().config(), "operator": "ct-parallel-astra"}


@register_operator("ct-fan-astra")
class AstraFan2D(_Astra, FanBeam2D):
    r"""Fan-beam X-ray transform by the ASTRA Toolbox, :math:`y_{tk} = \int x\,\mathrm{d}l`; flat detectors only.

    The same operator as :class:`~medrecon.operators.ct.fan_beam.FanBeam2D`, by another projector. On the CPU
    that is ``line_fanflat``, which weights a pixel by the length of the ray inside it (Siddon, Medical
    Physics 12:252, 1985), with an exact adjoint; Joseph's model differs from it by about a percent. For
    CUDA, precision and installation see :class:`AstraParallel2D`. Filtered back-projection is that of
    ``FanBeam2D`` and does not use ASTRA.

    Parameters
    ----------
    image_shape
        (C, H, W), or (H, W) for C = 1.
    angles
        β in radians, (views,) or, one list a sample, (B, views).
    source_origin, source_detector
        SOD and SDD in mm.
    detector_count, detector_pitch
        Bins and their distance in mm at the detector.
    detector_shape
        ``flat``; ASTRA has no curved detectors in two dimensions.
    pixel_size, detector_offset, center_of_rotation, image_center
        In mm.

    Raises
    ------
    UsageError
        Where ASTRA is missing or too old.
    OperatorError
        For ``detector_shape="arc"``.
    """

    _geometry = "fanflat_vec"
    _cpu_projector = "line_fanflat"

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
        import_astra("AstraFan2D")
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
                "AstraFan2D: ASTRA projects slices on flat detectors only (its curved ones are three-dimensional), "
                "got detector_shape 'arc'; use ct-fan"
            )

    def _vectors(self) -> Tensor:
        axis, ahead, image = self._frame()
        source = -self.source_origin * ahead - self.center_of_rotation * axis - image
        middle = source + self.source_detector * ahead + self.detector_offset * axis
        return torch.cat((source, middle, axis * self.detector_pitch), 2) / self.pixel_size

    def config(self) -> dict[str, Any]:
        """Return the geometry; with the tensor of angles the operator is rebuilt from it."""
        return {**super().config(), "operator": "ct-fan-astra"}


def import_astra(name: str) -> Any:  # noqa: ANN401 (a module without types)
    """Return the module ``astra`` for the operator of that name, or raise with what to install."""
    install = 'pip install "medrecon[astra]"'
    try:
        import astra
    except ImportError as error:
        raise UsageError(
            f"{name}: needs the package astra-toolbox (2.5 or later, GPLv3), which cannot be imported ({error}); "
            f"install it with: {install}"
        ) from error
    if not hasattr(astra.projector, "direct_FP"):
        raise UsageError(
            f"{name}: needs astra-toolbox 2.5 or later, found {getattr(astra, '__version__', 'an older one')}; "
            f"update it with: {install}"
        )
    return astra
