import pytest
import torch

from medrecon.operators import CartesianMRI, Inpainting, intensity_scale
from medrecon.reconstructors import L1Wavelet, Tikhonov
from medrecon.reconstructors.wavelet_prox import WaveletShrinkage
from medrecon.reconstructors.wavelet_transform import WaveletTransform


def objective(x, operator, data, weight):
    """Of an image whose size needs no padding."""
    transform = WaveletTransform(x.shape[2:])
    details = transform.analyze(x.flatten(0, 1).to(torch.complex128)).details
    sparsity = sum(float(band.abs().sum()) for band in details)
    return 0.5 * float((operator(x) - data).abs().square().sum()) + weight * sparsity


def proximal_gradient(operator, data, weight, iterations):
    """The plain method, complex numbers and all (norm of the operator at most 1)."""
    transform = WaveletTransform(operator.image_shape[1:])
    b = operator.adjoint(data)
    x = b.clone()
    for _ in range(iterations):
        bands = transform.analyze((x - operator.gram(x) + b).flatten(0, 1))
        for band in bands.details:
            band.copy_(torch.polar((band.abs() - weight).clamp_min(0), band.angle()))
        x = transform.synthesize(bands).reshape(x.shape)
    return x


def test_reaches_the_minimum(brain):
    weight = 0.01 * float(intensity_scale(brain.operator, brain.data))
    best = proximal_gradient(brain.operator, brain.data, weight, 400)
    lowest = objective(best, brain.operator, brain.data, weight)
    for iterations, excess in ((50, 1e-3), (200, 1e-5)):
        image = L1Wavelet(0.01, iterations, 0, cycle_spinning=False)(brain.data, brain.operator)
        assert abs(objective(image, brain.operator, brain.data, weight) / lowest - 1) < excess


def test_shrinkage_is_the_proximal_map():
    transform = WaveletTransform((16, 16), "db2", 2)
    v = torch.randn(2, 2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = WaveletShrinkage(transform, None)(v.clone(), 0, torch.tensor([0.5]))
    before = transform.analyze(torch.complex(v[:, 0], v[:, 1]).flatten(0, 1))
    after = transform.analyze(torch.complex(x[:, 0], x[:, 1]).flatten(0, 1))
    assert torch.allclose(before.smooth, after.smooth)
    for a, b in zip(before.details, after.details, strict=True):
        assert torch.allclose(b, torch.polar((a.abs() - 0.5).clamp_min(0), a.angle()), atol=1e-12)


def test_the_seed_decides(brain):
    def run(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return L1Wavelet(max_iter=10)(brain.data, brain.operator, generator=generator)

    state = torch.get_rng_state()
    assert torch.equal(run(None), run(None))
    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [(57, 46), (50, 45)])
def test_odd_sizes_are_as_good(make, size):
    """A size that needs padding loses nothing against one that does not."""

    def error(height, width):
        maps, image = make.coil_maps(height, width, 4), make.phantom(height, width)[None, None]
        operator = CartesianMRI(make.line_mask(width), maps)
        data = operator(image)
        return float((L1Wavelet()(data, operator) - image).norm() / image.norm())

    assert error(*size) < 1.2 * error(56, 48)


def test_padding_hides_the_border():
    """The grid is larger than the image, and nothing of it wraps around into the image."""
    operator = Inpainting(torch.ones(1, 30, 30, dtype=torch.bool))
    image = torch.zeros(1, 1, 30, 30)
    image[..., :, 15:] = 1.0
    result = L1Wavelet(0.01)(image, operator)
    assert float((result - image).abs().max()) < 0.1


@pytest.mark.parametrize("wavelet", ["haar", "db3", "db4"])
def test_other_wavelets(brain, wavelet):
    def error(method):
        return float((method(brain.data, brain.operator) - brain.image).norm())

    assert error(L1Wavelet(wavelet=wavelet)) < 0.8 * error(Tikhonov())


def test_cycle_spinning_helps(brain):
    def error(*, cycle_spinning):
        method = L1Wavelet(0.005, cycle_spinning=cycle_spinning)
        return float((method(brain.data, brain.operator) - brain.image).norm())

    assert error(cycle_spinning=True) < 0.97 * error(cycle_spinning=False)


def test_stops_early_without_shifts(brain):
    calls = []
    method = L1Wavelet(0.01, 500, 1e-2, cycle_spinning=False)
    method(brain.data, brain.operator, progress=lambda done, _: calls.append(done))
    assert len(calls) < 60
