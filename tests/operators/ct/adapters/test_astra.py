"""Every test runs on a stand-in for ASTRA, a dense Joseph matrix of its vector geometries, and on ASTRA where it is."""

import copy
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from medrecon.errors import OperatorError, UsageError
from medrecon.operators import FanBeam2D, ParallelBeam2D
from medrecon.operators.ct.adapters.astra import AstraFan2D, AstraParallel2D
from medrecon.operators.ct.parallel_torch import project
from medrecon.operators.registry import operator_class
from medrecon.testing import adjoint_error, assert_linear_operator

ANGLES = torch.tensor([0.0, 0.3, math.pi / 4, 1.2, math.pi / 2, 2.0, 2.9, math.pi, 4.1], dtype=torch.float64)
PARALLEL = {
    "detector_count": 83,
    "detector_pitch": 0.7,
    "pixel_size": 0.9,
    "detector_offset": 1.3,
    "center_of_rotation": -0.6,
    "image_center": (1.7, -2.3),
}
FAN = {**PARALLEL, "source_origin": 120.0, "source_detector": 200.0, "detector_pitch": 1.3}


class AstraError(Exception):
    pass


class StandIn:
    """The part of ASTRA's interface that is used, on unit pixels around the origin."""

    def __init__(self):
        self.live = {}
        self.matrices = {}

    def module(self):
        module = ModuleType("astra")
        module.__version__ = "2.5.0"
        module.use_cuda = lambda: False
        module.log = SimpleNamespace(AstraError=AstraError)
        module.create_proj_geom = lambda *geometry: geometry
        module.create_vol_geom = lambda rows, columns: (rows, columns)
        module.create_projector = self.create
        module.projector = SimpleNamespace(direct_FP=self.forward, direct_BP=self.back, delete=self.live.pop)
        return module

    def create(self, kind, geometry, volume, options):
        expected = {"linear": "parallel_vec", "line_fanflat": "fanflat_vec"}
        if expected.get(kind) != geometry[0]:
            raise AstraError("Unsupported projection geometry")
        number = len(self.live) + 1
        key = (geometry[:2], geometry[2].tobytes(), volume)
        if key not in self.matrices:
            self.matrices[key] = self.matrix(*geometry, *volume)
        self.live[number] = self.matrices[key]
        return number

    def matrix(self, kind, count, vectors, rows, columns):
        weights = np.zeros((len(vectors), count, rows, columns))
        for view, (a, b, x, y, du, dv) in enumerate(vectors):
            for k in range(count):
                at = np.array([x, y]) + (k - (count - 1) / 2) * np.array([du, dv])
                along = np.array([a, b]) if kind == "parallel_vec" else at - np.array([a, b])
                steep = abs(along[1]) > abs(along[0])
                lines, across = (rows, columns) if steep else (columns, rows)
                for line in range(lines):
                    if steep:
                        level = (rows - 1) / 2 - line
                        q = at[0] + (level - at[1]) * along[0] / along[1] + (columns - 1) / 2
                    else:
                        level = line - (columns - 1) / 2
                        q = (rows - 1) / 2 - at[1] - (level - at[0]) * along[1] / along[0]
                    left = math.floor(q)
                    length = np.linalg.norm(along) / np.abs(along).max()
                    for position, weight in ((left, 1 - q + left), (left + 1, q - left)):
                        if 0 <= position < across:
                            pixel = (line, position) if steep else (position, line)
                            weights[(view, k, *pixel)] += weight * length
        return torch.from_numpy(weights.reshape(len(vectors) * count, -1)).float()

    def forward(self, projector, volume, *, out):
        assert volume.dtype == out.dtype == torch.float32
        assert volume.is_contiguous()
        out.copy_((self.live[projector] @ volume.flatten()).view_as(out))

    def back(self, projector, sinogram, *, out):
        assert sinogram.dtype == out.dtype == torch.float32
        assert sinogram.is_contiguous()
        out.copy_((self.live[projector].mT @ sinogram.flatten()).view_as(out))


@pytest.fixture(params=["stand-in", "real"])
def astra(request, monkeypatch):
    """The module, with ``alive()``: how many projectors were created and not deleted."""
    if request.param == "stand-in":
        stand_in = StandIn()
        module = stand_in.module()
        module.alive = lambda: len(stand_in.live)
        monkeypatch.setitem(sys.modules, "astra", module)
        return module
    module = pytest.importorskip("astra", reason="needs astra-toolbox 2.5", exc_type=ImportError)
    numbers, create, delete = set(), module.create_projector, module.projector.delete

    def counted(*given):
        number = create(*given)
        numbers.add(number)
        return number

    def discounted(number):
        numbers.discard(number)
        delete(number)

    monkeypatch.setattr(module, "create_projector", counted)
    monkeypatch.setattr(module.projector, "delete", discounted)
    monkeypatch.setattr(module, "alive", lambda: len(numbers), raising=False)
    return module


def phantom(height, width):
    """Two smooth blobs without any symmetry, (1, 1, H, W) float32."""
    x = torch.arange(width) - width / 2
    y = torch.arange(height)[:, None] - height / 2
    blobs = torch.exp(-((x - 6) ** 2 + (y + 4) ** 2) / 30) + 0.5 * torch.exp(-((x + 9) ** 2) / 20 - (y - 7) ** 2 / 9)
    return blobs[None, None]


def relative(a, b):
    return float((a - b).norm() / b.norm())


def small(cls, *, batch=False):
    """A small operator with every shift, with one list of angles or one a sample."""
    geometry = {"detector_count": 19, "pixel_size": 0.9, "detector_offset": 1.3, "center_of_rotation": -0.6}
    if cls is AstraFan2D:
        geometry |= {"source_origin": 40.0, "source_detector": 70.0, "detector_pitch": 1.4}
    angles = ANGLES.reshape(3, 3) if batch else ANGLES
    return cls((2, 9, 12), angles, image_center=(1.7, -2.3), **geometry)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("cls", [AstraParallel2D, AstraFan2D])
def test_contract(astra, cls, batch):
    operator = small(cls, batch=batch)
    assert_linear_operator(operator, tol_double=1e-6)  # ASTRA computes in single precision
    assert operator.adjoint_matched
    assert adjoint_error(operator) < 1e-7
    assert astra.alive() == 0


def test_parallel_beam_is_josephs_model(astra):
    """ASTRA's `linear` and our oracle are the same model; what is left is single precision."""
    operator = AstraParallel2D((37, 50), ANGLES, **PARALLEL)
    x = phantom(37, 50)
    expected = project(x[0].double(), operator.views[0], 0.7 / 0.9, 83) * 0.9
    assert relative(operator(x)[0].double(), expected) < 5e-6
    assert relative(ParallelBeam2D((37, 50), -ANGLES, **PARALLEL)(x)[0], expected) > 0.3  # it would tell a mirror


@pytest.mark.parametrize("name", ["detector_offset", "center_of_rotation", "source_detector"])
def test_fan_beam_measures_what_ours_measures(astra, name):
    """Within the difference of Siddon's model (ASTRA's `line_fanflat`) from Joseph's, for every parameter."""
    geometry = {**FAN, name: FAN[name] * 1.5}
    x = phantom(37, 50)
    expected = FanBeam2D((37, 50), ANGLES, **geometry)(x)
    assert relative(AstraFan2D((37, 50), ANGLES, **geometry)(x), expected) < 0.02
    assert relative(AstraFan2D((37, 50), ANGLES, **FAN)(x), expected) > 0.04


@pytest.mark.parametrize("window", ["ram-lak", "hann"])
@pytest.mark.parametrize("fan", [False, True])
def test_filtered_backprojection(astra, fan, window):
    geometry = {"detector_count": 41, "detector_pitch": 1.2 if fan else 0.6, "pixel_size": 0.9}
    geometry |= {"source_origin": 60.0, "source_detector": 100.0} if fan else {"image_center": (1.0, 0.5)}
    angles = torch.arange(40) * ((2 if fan else 1) * math.pi / 40)
    theirs, ours = (AstraFan2D, FanBeam2D) if fan else (AstraParallel2D, ParallelBeam2D)
    operator, oracle = (cls((24, 20), angles, **geometry) for cls in (theirs, ours))
    y = oracle(phantom(24, 20))
    x = operator.filtered_backprojection(y, window=window)
    assert relative(x, oracle.filtered_backprojection(y, window=window)) < 0.02
    if window == "ram-lak":
        assert torch.equal(operator.initial(y), x)


def test_every_sample_has_its_own_angles(astra):
    operator = small(AstraParallel2D, batch=True)
    x = torch.rand(3, 2, 9, 12)
    for index, angles in enumerate(operator.angles):
        alone = AstraParallel2D(
            operator.image_shape,
            angles,
            detector_count=19,
            pixel_size=0.9,
            detector_offset=1.3,
            center_of_rotation=-0.6,
            image_center=(1.7, -2.3),
        )
        torch.testing.assert_close(operator(x)[index], alone(x[index : index + 1])[0])


def test_double_precision_input_is_computed_in_single(astra):
    operator = small(AstraFan2D)
    x = torch.rand(2, 2, 9, 12, dtype=torch.float64, requires_grad=True)
    y = operator(x)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y.float(), operator(x.detach().float()), rtol=1e-6, atol=1e-6)


def test_oblique_memory_is_no_problem(astra):
    operator = small(AstraParallel2D)
    x = torch.rand(12, 9, 2, 3)
    torch.testing.assert_close(operator(x.permute(3, 2, 1, 0)), operator(x.permute(3, 2, 1, 0).contiguous()))


def test_copies_work(astra):
    operator = small(AstraFan2D)
    x = torch.rand(1, 2, 9, 12)
    assert torch.equal(copy.deepcopy(operator)(x), operator(x))


def test_projectors_are_freed_after_an_error(astra, monkeypatch):
    def fail(*_, **__):
        raise astra.log.AstraError("out of memory")

    operator = small(AstraParallel2D)
    monkeypatch.setattr(astra.projector, "direct_FP", fail)
    with pytest.raises(OperatorError, match=r"AstraParallel2D: ASTRA's projector 'linear' failed: .*out of memory"):
        operator(torch.rand(1, 2, 9, 12))
    assert astra.alive() == 0
    monkeypatch.setattr(astra.projector, "direct_BP", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operator.adjoint(torch.rand(1, *operator.data_shape))
    assert astra.alive() == 0


def test_a_geometry_that_astra_refuses(astra, monkeypatch):
    monkeypatch.setattr(AstraParallel2D, "_cpu_projector", "line_fanflat")
    with pytest.raises(OperatorError, match=r"AstraParallel2D: ASTRA refuses this geometry: .*Unsupported"):
        small(AstraParallel2D)(torch.rand(1, 2, 9, 12))


def test_refuses_an_arc(astra):
    with pytest.raises(OperatorError, match=r"flat detectors only .* use ct-fan"):
        AstraFan2D((9, 12), ANGLES, detector_shape="arc", **FAN)


def test_refuses_other_devices(astra):
    operator = small(AstraParallel2D).to("meta")
    assert not operator.adjoint_matched
    with pytest.raises(OperatorError, match=r"finds no CUDA device, got a tensor on meta; move .* to the CPU"):
        operator._forward(torch.rand(1, 2, 9, 12, device="meta"))  # autocast, in between, does not know "meta"


@pytest.mark.parametrize(("cls", "geometry"), [(AstraParallel2D, PARALLEL), (AstraFan2D, FAN)])
def test_missing_package(monkeypatch, cls, geometry):
    monkeypatch.setitem(sys.modules, "astra", None)
    with pytest.raises(UsageError, match=rf'{cls.__name__}: needs .* pip install "medrecon\[astra\]"'):
        cls((9, 12), ANGLES, **geometry)


def test_package_too_old(monkeypatch):
    old = ModuleType("astra")
    old.__version__, old.projector = "2.1.0", SimpleNamespace()
    monkeypatch.setitem(sys.modules, "astra", old)
    with pytest.raises(UsageError, match=r"2\.5 or later, found 2\.1\.0"):
        AstraParallel2D((9, 12), ANGLES)


def test_registered_names():
    assert operator_class("ct-parallel-astra") is AstraParallel2D
    assert operator_class("ct-fan-astra") is AstraFan2D


@pytest.mark.gpu
@pytest.mark.parametrize(("cls", "geometry"), [(AstraParallel2D, PARALLEL), (AstraFan2D, FAN)])
def test_cuda_is_close_to_the_cpu(cls, geometry):
    module = pytest.importorskip("astra", reason="needs astra-toolbox 2.5", exc_type=ImportError)
    if not module.use_cuda():
        pytest.skip("this ASTRA finds no CUDA device")
    operator = cls((37, 50), ANGLES, **geometry)
    x = phantom(37, 50)
    y = operator(x)
    moved = copy.deepcopy(operator).cuda()
    assert not moved.adjoint_matched
    assert relative(moved(x.cuda()).cpu(), y) < 0.02
    back = moved.adjoint(y.cuda()).cpu()
    assert float(back.sum() / operator.adjoint(y).sum()) == pytest.approx(1, abs=0.02)
