"""torch-radon wants CUDA and is not on the package index: a stand-in with its interface and orientation replaces it."""

import copy
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from medrecon.errors import OperatorError, UsageError
from medrecon.operators import FanBeam2D, ParallelBeam2D
from medrecon.operators.ct.adapters import torch_radon as adapter
from medrecon.operators.ct.adapters.torch_radon import TorchRadonFan, TorchRadonParallel
from medrecon.operators.registry import operator_class
from medrecon.testing import adjoint_error, assert_linear_operator

ANGLES = torch.arange(24) * (2 * math.pi / 24) + 0.05
FAN = {"source_origin": 40.0, "source_detector": 66.0, "detector_count": 37, "detector_pitch": 1.3}


# -- the stand-in: pixels, x to the right, y downwards, both from the middle of the image --------------


def ray_sum(images, angles, count, spacing, orbit, behind):
    """Samples along the rays, bilinear, zero outside; `angles` turn as the kernels of torch-radon do."""
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    height, width = images.shape[-2:]
    u = (torch.arange(count) - count / 2 + 0.5) * spacing
    reach = math.hypot(height, width)
    start = (
        torch.stack((u, torch.full_like(u, reach)), 1) if not orbit else torch.tensor([[0.0, orbit]]).expand(count, 2)
    )
    end = torch.stack((u, torch.full_like(u, -behind if orbit else -reach)), 1)
    steps = 4 * math.ceil(float((end - start).norm(dim=1).max()))
    along = ((torch.arange(steps) + 0.5) / steps)[:, None, None]
    points = start + along * (end - start)
    views = []
    for angle in angles:
        c, s = angle.cos(), angle.sin()
        x, y = points[..., 0] * c - points[..., 1] * s, points[..., 0] * s + points[..., 1] * c
        grid = torch.stack((x * 2 / width, y * 2 / height), -1)[None].expand(len(images), -1, -1, -1)
        samples = torch.nn.functional.grid_sample(images[:, None], grid, align_corners=False)
        views.append(samples[:, 0].sum(1) * (end - start).norm(dim=1) / steps)
    return torch.stack(views, 1)


def smear(sinograms, angles, height, width, spacing, orbit, behind):
    """Every pixel reads the sinogram where it is projected to, linearly: not the transpose of `ray_sum`."""
    assert sinograms.dtype == torch.float32
    assert sinograms.is_contiguous()
    x = torch.arange(width) + 0.5 - width / 2
    y = (torch.arange(height) + 0.5 - height / 2)[:, None]
    padded = torch.nn.functional.pad(sinograms, (1, 1))
    result = sinograms.new_zeros(len(sinograms), height, width)
    for index, angle in enumerate(angles):
        c, s = angle.cos(), angle.sin()
        zoom = (orbit + behind) / (orbit + x * s - y * c) if orbit else torch.ones(height, width)
        at = ((x * c + y * s) * zoom / spacing + (sinograms.shape[2] - 1) / 2).clamp(-1, sinograms.shape[2])
        left = at.floor().clamp_max(sinograms.shape[2] - 1)
        row, column = padded[:, index], left.long() + 1
        result += (row[:, column] * (1 - at + left) + row[:, column + 1] * (at - left)) * zoom / spacing
    return result


class Version1:
    def __init__(self, resolution, angles, det_count, det_spacing, source_distance=0.0, det_distance=0.0):
        assert resolution % 16 == 0
        self.angles = -angles
        self.det_count, self.det_spacing = det_count, det_spacing
        self.resolution, self.distances = resolution, (source_distance, det_distance)
        self.texture = (_ for _ in ())  # as a pybind object: neither copied nor pickled

    def forward(self, x):
        assert x.shape[1:] == (self.resolution, self.resolution)
        return ray_sum(x, self.angles, self.det_count, self.det_spacing, *self.distances)

    def backprojection(self, sinogram):
        return smear(sinogram, self.angles, self.resolution, self.resolution, self.det_spacing, *self.distances)

    backward = backprojection


class Radon(Version1):
    def __init__(self, resolution, angles, det_count=-1, det_spacing=1.0, clip_to_circle=False):
        super().__init__(resolution, angles, det_count if det_count > 0 else resolution, det_spacing)


class RadonFanbeam(Version1):
    def __init__(
        self, resolution, angles, source_distance, det_distance=-1, det_count=-1, det_spacing=-1, clip_to_circle=False
    ):
        super().__init__(resolution, angles, det_count, det_spacing, source_distance, det_distance)
        self.source_distance, self.det_distance = source_distance, det_distance


class Volume2D:
    def __init__(self, voxel_size=(1.0, 1.0)):
        self.height, self.width, self.voxel_size = -1, -1, voxel_size

    def set_size(self, height, width):
        self.height, self.width = height, width


class Version2:
    def __init__(self, angles, projection, volume):
        self.angles, self.projection = angles, projection
        self.volume = Volume2D() if volume is None else volume
        self.texture = (_ for _ in ())

    def _geometry(self):
        p = getattr(self.projection, "cfg", self.projection)
        return p.det_spacing_u if hasattr(p, "det_spacing_u") else p.det_spacing, p.s_dist, p.d_dist

    def forward(self, x, angles=None, exec_cfg=None):
        self.volume.set_size(*x.shape[-2:])
        p = getattr(self.projection, "cfg", self.projection)
        count = p.det_count_u if hasattr(p, "det_count_u") else p.det_count
        return ray_sum(x, -self.angles, count, *self._geometry())

    def backward(self, sinogram, angles=None, volume=None, exec_cfg=None):
        assert self.volume.height > 0, "Must use forward before calling backward or specify a volume"
        return smear(sinogram, -self.angles, self.volume.height, self.volume.width, *self._geometry())


class ParallelBeam(Version2):
    def __init__(self, det_count, angles, det_spacing=1.0, volume=None):
        projection = SimpleNamespace(det_count=det_count, det_spacing=det_spacing, s_dist=0.0, d_dist=0.0)
        super().__init__(angles, projection, volume)


class FanBeam(Version2):
    def __init__(self, det_count, angles, src_dist=None, det_dist=None, det_spacing=None, volume=None):
        cfg = SimpleNamespace(det_count_u=det_count, det_spacing_u=det_spacing, s_dist=src_dist, d_dist=det_dist)
        super().__init__(angles, SimpleNamespace(cfg=cfg), volume)  # as version 3 keeps it


VERSIONS = {1: (Radon, RadonFanbeam), 2: (ParallelBeam, FanBeam)}


def install(monkeypatch, version):
    module = ModuleType("torch_radon")
    for cls in VERSIONS[version]:
        setattr(module, cls.__name__, cls)
    if version == 2:
        module.cuda_backend = SimpleNamespace(forward=None, backward=None)
    monkeypatch.setitem(sys.modules, "torch_radon", module)
    monkeypatch.setattr(adapter, "_DEVICE", "cpu")
    return module


@pytest.fixture(params=[1, 2])
def version(request, monkeypatch):
    install(monkeypatch, request.param)
    return request.param


def phantom(size, pixel):
    """Two smooth blobs without any symmetry, (1, 1, size, size)."""
    x = (torch.arange(size) - (size - 1) / 2) * pixel
    y = -x[:, None]
    blobs = torch.exp(-((x - 4) ** 2 + (y - 6) ** 2) / 12) + 0.6 * torch.exp(-((x + 6) ** 2) / 20 - (y + 3) ** 2 / 8)
    return blobs[None, None]


def relative(a, b):
    return float((a - b).norm() / b.norm())


# -- tests ---------------------------------------------------------------------------------------------


def test_contract(version):
    parallel = TorchRadonParallel((2, 16, 16), ANGLES[:7], detector_count=21, detector_pitch=0.8, pixel_size=0.7)
    fan = TorchRadonFan((1, 16, 16), ANGLES[:7], pixel_size=0.9, **FAN)
    for operator in (parallel, fan):
        assert_linear_operator(operator)
        assert not operator.adjoint_matched
        assert operator.pinv_kind == "approximate"


def test_contract_of_oblong_images(monkeypatch):
    install(monkeypatch, 2)
    assert_linear_operator(TorchRadonParallel((1, 11, 14), ANGLES[:7]))


def test_measures_what_our_projectors_measure(version):
    pixel = 0.7
    x = phantom(32, pixel)
    geometry = {"detector_count": 45, "detector_pitch": 0.8, "pixel_size": pixel}
    y = TorchRadonParallel((32, 32), ANGLES, **geometry)(x)
    assert relative(y, ParallelBeam2D((32, 32), ANGLES, **geometry)(x)) < 0.01
    assert relative(y, ParallelBeam2D((32, 32), -ANGLES, **geometry)(x)) > 0.3  # the phantom would tell a mirror
    y = TorchRadonFan((32, 32), ANGLES, pixel_size=pixel, **FAN)(x)
    assert relative(y, FanBeam2D((32, 32), ANGLES, pixel_size=pixel, **FAN)(x)) < 0.01
    assert relative(y, FanBeam2D((32, 32), -ANGLES, pixel_size=pixel, **FAN)(x)) > 0.3


def test_adjoint_is_close_but_no_transpose(version):
    parallel = {"detector_count": 45, "detector_pitch": 0.6, "pixel_size": 0.7}
    fan = {"pixel_size": 0.7, **FAN}
    for theirs, ours, geometry in ((TorchRadonParallel, ParallelBeam2D, parallel), (TorchRadonFan, FanBeam2D, fan)):
        operator, oracle = theirs((32, 32), ANGLES, **geometry), ours((32, 32), ANGLES, **geometry)
        y = oracle(phantom(32, 0.7))
        back, transposed = operator.adjoint(y), oracle.adjoint(y)
        assert relative(back, transposed) < 0.06
        assert float(back.sum() / transposed.sum()) == pytest.approx(1, abs=0.01)
        assert adjoint_error(operator) > 1e-4
        with pytest.raises(OperatorError, match="only approximate"):
            operator.pinv(y)


@pytest.mark.parametrize("window", ["ram-lak", "hann"])
def test_filtered_backprojection_has_the_right_scale(version, window):
    """A disc of 0.02/mm and 8 mm around (1.5, -2): its line integrals are chords."""
    pixel, pitch, count, value = 0.7, 0.5, 75, 0.02
    angles = torch.arange(120) * (math.pi / 120)
    u = (torch.arange(count) - (count - 1) / 2) * pitch
    chord = 64 - (u - (1.5 * angles.cos() - 2 * angles.sin())[:, None]) ** 2
    y = (2 * value * chord.clamp_min(0).sqrt())[None, None]
    operator = TorchRadonParallel((32, 32), angles, detector_count=count, detector_pitch=pitch, pixel_size=pixel)
    x = operator.filtered_backprojection(y, window=window)
    column = (torch.arange(32) - 15.5) * pixel
    inside = (column - 1.5) ** 2 + (-column[:, None] + 2) ** 2 < 5**2
    assert float(x[0, 0][inside].mean()) == pytest.approx(value, rel=0.01)
    if window == "ram-lak":
        assert torch.equal(operator.initial(y), x)


def test_double_precision_input_is_computed_in_single(version):
    operator = TorchRadonParallel((16, 16), ANGLES)
    x = phantom(16, 1.0).double().requires_grad_()
    y = operator(x)
    assert y.dtype == torch.float64
    assert torch.equal(y, operator(x.detach().float()).double())


def test_angles_reach_it_within_a_half_turn(monkeypatch):
    module, seen = install(monkeypatch, 2), []
    original = module.ParallelBeam

    def spy(count, angles, *rest):
        seen.append(angles)
        return original(count, angles, *rest)

    module.ParallelBeam = spy
    angles = torch.tensor([-7.0, 0.5, 100.0], dtype=torch.float64)
    TorchRadonParallel((16, 16), angles)(phantom(16, 1.0))
    assert seen[0].dtype == torch.float32
    assert float(seen[0].abs().max()) <= math.pi
    torch.testing.assert_close(seen[0].double().sin(), angles.sin(), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0].double().cos(), angles.cos(), atol=1e-6, rtol=0)


# -- objects that exist already ------------------------------------------------------------------------


def existing(version):
    angles = ANGLES.float()
    if version == 1:
        return Radon(32, angles, 45, 1.2), RadonFanbeam(32, angles, 60.0, 40.0, 37, 1.9)
    return ParallelBeam(45, angles, 1.2), FanBeam(37, angles, 60.0, 40.0, 1.9)


def test_wraps_an_existing_object(version, monkeypatch):
    parallel, fan = existing(version)
    monkeypatch.setitem(sys.modules, "torch_radon", None)  # must not be needed
    x = phantom(32, 0.7)
    operator = TorchRadonParallel.wrap(parallel, (32, 32), pixel_size=0.7)
    assert relative(operator(x)[0], parallel.forward(x[0]) * 0.7) < 1e-6
    assert (operator.detector_count, operator.detector_pitch) == (45, pytest.approx(1.2 * 0.7))
    torch.testing.assert_close(operator.angles[0], ANGLES.double(), atol=1e-6, rtol=0)
    operator = TorchRadonFan.wrap(fan, (32, 32), pixel_size=0.7)
    assert relative(operator(x)[0], fan.forward(x[0]) * 0.7) < 1e-6
    assert (operator.source_origin, operator.source_detector) == (pytest.approx(42), pytest.approx(70))


def test_wrapped_operators_pass_the_kit_and_copies_are_rebuilt(version):
    if version == 1:
        operator = TorchRadonParallel.wrap(Radon(16, ANGLES[:5].float()), (16, 16))
    else:
        operator = TorchRadonParallel.wrap(ParallelBeam(16, ANGLES[:5].float()), (16, 16))
    assert_linear_operator(operator)
    twin = copy.deepcopy(operator)
    assert twin._radon is None
    torch.testing.assert_close(twin(phantom(16, 1.0)), operator(phantom(16, 1.0)))


def test_operators_of_two_sizes_share_an_object_of_version_2(monkeypatch):
    install(monkeypatch, 2)
    radon = ParallelBeam(30, ANGLES.float())
    small, large = (TorchRadonParallel.wrap(radon, (size, size + 3)) for size in (10, 20))
    y = torch.rand(1, 1, 24, 30)
    assert small.adjoint(y).shape == (1, 1, 10, 13)  # before any forward, which version 2 alone refuses
    large(torch.rand(1, 1, 20, 23))
    assert small.adjoint(y).shape == (1, 1, 10, 13)


# -- what it refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shift", [{"detector_offset": 1.0}, {"center_of_rotation": -0.5}, {"image_center": (0.0, 2.0)}]
)
def test_refuses_shifts(shift):
    with pytest.raises(OperatorError, match=f"centred on the rotation axis, got {next(iter(shift))}"):
        TorchRadonParallel((16, 16), ANGLES, **shift)
    with pytest.raises(OperatorError, match=f"centred on the rotation axis, got {next(iter(shift))}"):
        TorchRadonFan((16, 16), ANGLES, **FAN, **shift)


@pytest.mark.parametrize("angles", [ANGLES.reshape(2, 12), torch.arange(4097) * 1e-3])
def test_refuses_more_than_one_list_of_4096_angles(angles):
    with pytest.raises(OperatorError, match="one list of at most 4096 angles"):
        TorchRadonParallel((16, 16), angles)


def test_refuses_an_arc():
    with pytest.raises(OperatorError, match="flat detectors only"):
        TorchRadonFan((16, 16), ANGLES, detector_shape="arc", **FAN)


@pytest.mark.parametrize("shape", [(24, 24), (16, 32)])
def test_version_1_refuses_other_sizes(monkeypatch, shape):
    install(monkeypatch, 1)
    with pytest.raises(OperatorError, match=rf"multiple of 16, got {shape[0]}x{shape[1]}"):
        TorchRadonParallel(shape, ANGLES)(torch.rand(1, 1, *shape))


def test_refuses_tensors_on_the_cpu():
    with pytest.raises(OperatorError, match=r"TorchRadonParallel: torch-radon runs on CUDA only, got a tensor on cpu"):
        TorchRadonParallel((16, 16), ANGLES)(torch.rand(1, 1, 16, 16))


def test_wrap_refuses_other_objects(version):
    parallel, fan = existing(version)
    with pytest.raises(OperatorError, match=r"use TorchRadonFan\.wrap"):
        TorchRadonParallel.wrap(fan, (32, 32))
    with pytest.raises(OperatorError, match=r"use TorchRadonParallel\.wrap"):
        TorchRadonFan.wrap(parallel, (32, 32))
    with pytest.raises(UsageError, match="expected an object of torch_radon, got SimpleNamespace"):
        TorchRadonFan.wrap(SimpleNamespace(), (32, 32))


def test_wrap_refuses_the_wrong_size(monkeypatch):
    install(monkeypatch, 1)
    with pytest.raises(OperatorError, match=r"made for images of \(32, 32\)"):
        TorchRadonParallel.wrap(existing(1)[0], (48, 48))
    monkeypatch.setattr(adapter, "_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OperatorError, match="there is no CUDA device"):
        TorchRadonParallel.wrap(existing(1)[0], (32, 32))


def test_wrap_refuses_other_voxels():
    radon = ParallelBeam(45, ANGLES.float(), volume=Volume2D(voxel_size=(0.5, 0.5)))
    with pytest.raises(OperatorError, match="give the size here, as pixel_size"):
        TorchRadonParallel.wrap(radon, (32, 32))


def test_missing_package(monkeypatch):
    monkeypatch.setattr(adapter, "_DEVICE", "cpu")
    monkeypatch.setitem(sys.modules, "torch_radon", None)
    with pytest.raises(UsageError, match=r"torch_radon cannot be imported .* not on the package index"):
        TorchRadonParallel((16, 16), ANGLES)(torch.rand(1, 1, 16, 16))


@pytest.mark.parametrize("at_import", [True, False])
def test_package_without_its_compiled_half(monkeypatch, tmp_path, capsys, at_import):
    """It prints a line where it cannot load it, and fails by a NameError: on import or when an object is made."""
    body = "def f(cfg: RaysCfg): ...\n" if at_import else "def Radon(*_): return RaysCfg\n"
    (tmp_path / "torch_radon.py").write_text(f"print('Importing exception')\n{body}")
    monkeypatch.setattr(adapter, "_DEVICE", "cpu")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_radon", raising=False)
    with pytest.raises(UsageError, match="NameError: name 'RaysCfg' is not defined"):
        TorchRadonParallel((16, 16), ANGLES)(torch.rand(1, 1, 16, 16))
    assert capsys.readouterr().out == ""
    sys.modules.pop("torch_radon", None)


def test_version_2_without_backprojection(monkeypatch):
    install(monkeypatch, 2).cuda_backend = SimpleNamespace(forward=None)
    with pytest.raises(UsageError, match="this torch_radon cannot back-project"):
        TorchRadonParallel((16, 16), ANGLES)(torch.rand(1, 1, 16, 16))


def test_registered_names():
    assert operator_class("ct-parallel-torch-radon") is TorchRadonParallel
    assert operator_class("ct-fan-torch-radon") is TorchRadonFan


@pytest.mark.gpu
def test_the_real_library():
    pytest.importorskip("torch_radon", reason="needs torch-radon itself", exc_type=ImportError)
    x = phantom(32, 0.7).cuda()
    geometry = {"detector_count": 45, "detector_pitch": 0.8, "pixel_size": 0.7}
    y = TorchRadonParallel((32, 32), ANGLES, **geometry).cuda()(x)
    assert relative(y, ParallelBeam2D((32, 32), ANGLES, **geometry).cuda()(x)) < 0.02
    y = TorchRadonFan((32, 32), ANGLES, pixel_size=0.7, **FAN).cuda()(x)
    assert relative(y, FanBeam2D((32, 32), ANGLES, pixel_size=0.7, **FAN).cuda()(x)) < 0.02
