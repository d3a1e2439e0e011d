import numpy as np
import pytest
import torch
from scipy.io import loadmat

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.operators.coils import espirit, find_calibration_region

BART_THRESHOLD = 0.001**0.5  # BART compares squared singular values


def calibrate(kspace):
    return find_calibration_region(kspace).extract(kspace)


def overlap(a, b):
    """|<a, b>| over the coils."""
    return (a.conj() * b).sum(-3).abs()


def unexplained(images, maps):
    """Share of the coil images outside the span of the maps."""
    combined = torch.einsum("schw,chw->shw", maps.conj(), images)
    left = images - torch.einsum("schw,shw->chw", maps, combined)
    return float(torch.linalg.vector_norm(left) / torch.linalg.vector_norm(images))


def projector(maps):
    return torch.einsum("schw,sdhw->hwcd", maps, maps.conj())


@pytest.mark.parametrize(
    ("coils", "shape"), [(2, (64, 96)), (3, (97, 75)), (8, (97, 75)), (8, (128, 127)), (16, (97, 75))]
)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_finds_the_simulated_maps(simulate, coils, shape, dtype):
    sim = simulate(coils, shape, dtype=dtype)
    maps, eigenvalues = espirit(calibrate(sim.kspace), shape)
    assert maps.shape == (1, coils, *shape)
    assert maps.dtype == dtype
    assert eigenvalues.shape == (1, *shape)
    assert eigenvalues.dtype == maps.real.dtype
    assert float(eigenvalues[0, sim.support].min()) > 0.8
    agreement = overlap(maps[0], sim.maps)[sim.support]
    assert float(agreement.mean()) > 0.9999
    assert float(agreement.min()) > 0.995


def test_norm_and_mask(simulate):
    sim = simulate(8, (97, 75))
    maps, eigenvalues = espirit(calibrate(sim.kspace), (97, 75), num_sets=2, crop=0.85)
    norm = torch.linalg.vector_norm(maps, dim=1)
    kept = eigenvalues > 0.85
    torch.testing.assert_close(norm[kept], torch.ones_like(norm[kept]))
    assert not norm[~kept].any()
    assert kept[0].any()
    assert not kept[0].all()
    assert bool((eigenvalues[0] >= eigenvalues[1] - 1e-5).all())
    assert float(eigenvalues.max()) <= 1


def test_phase_is_that_of_the_principal_component(simulate):
    sim = simulate(8, (97, 75))
    calibration = calibrate(sim.kspace)
    samples = calibration.flatten(1)
    principal = torch.linalg.eigh(samples @ samples.mH)[1][:, -1]
    maps = espirit(calibration, (97, 75)).maps[0]
    projection = torch.einsum("c,chw->hw", principal.conj(), maps)[sim.support]
    global_phase = projection[0] / projection[0].abs()
    assert float(torch.angle(projection / global_phase).abs().max()) < 1e-3


def test_scale_and_position_of_the_region_do_not_matter(simulate):
    sim = simulate(4, (64, 64))
    small = sim.kspace[:, 20:44, 20:44]
    maps = espirit(small, (64, 64)).maps
    torch.testing.assert_close(espirit(small * 1e-20, (64, 64)).maps, maps, atol=1e-3, rtol=0)
    shifted = espirit(sim.kspace[:, 21:45, 19:43], (64, 64)).maps[0]
    assert float(overlap(shifted, maps[0])[sim.support].mean()) > 0.9999


def test_other_image_size_is_the_same_field_of_view(simulate):
    calibration = calibrate(simulate(6, (64, 64)).kspace)
    coarse, fine = espirit(calibration, (64, 64)).maps[0], espirit(calibration, (128, 128)).maps[0]
    torch.testing.assert_close(fine[:, ::2, ::2], coarse, atol=2e-3, rtol=0)


def test_refined_eigenvectors_are_the_exact_ones(simulate):
    """The coarse-to-fine iteration against one full decomposition per pixel, in double."""
    from medrecon.operators.coils._kernels import kernel_autocorrelation, signal_kernels

    sim = simulate(5, (61, 83), noise=0.1, dtype=torch.complex128)
    calibration = calibrate(sim.kspace)
    maps, eigenvalues = espirit(calibration, (61, 83), num_sets=2, crop=0.3)
    coefficients = kernel_autocorrelation(signal_kernels(calibration, 6, 0.03))
    y, x = torch.arange(61) - 30.0, torch.arange(83) - 41.0
    offsets = torch.arange(-5, 6)
    down = torch.exp(2j * torch.pi / 61 * torch.outer(y.double(), offsets.double()))
    across = torch.exp(2j * torch.pi / 83 * torch.outer(x.double(), offsets.double()))
    values, vectors = torch.linalg.eigh(torch.einsum("yp,xq,pqcd->yxcd", down, across, coefficients))
    for index in (0, 1):
        kept = eigenvalues[index] > 0.3
        assert kept.any()
        torch.testing.assert_close(eigenvalues[index][kept], values[..., -1 - index][kept], atol=1e-9, rtol=0)
        apart = (
            kept
            & (values[..., -1 - index] - values[..., -2 - index] > 0.01)
            & (values[..., -1] - values[..., -2] > 0.01)
        )
        exact = vectors[..., -1 - index].permute(2, 0, 1)
        assert float(overlap(maps[index], exact)[apart].min()) > 1 - 1e-6


@pytest.mark.parametrize("num_sets", [1, 2, "auto"])
def test_one_coil_is_ones(simulate, num_sets):
    maps, eigenvalues = espirit(calibrate(simulate(1, (32, 33)).kspace), (32, 33), num_sets=num_sets)
    assert maps.shape == (2 if num_sets == 2 else 1, 1, 32, 33)
    assert bool((maps[0] == 1).all())
    assert bool((eigenvalues[0] == 1).all())
    assert not maps[1:].any()


def test_two_sets_explain_an_object_larger_than_the_field_of_view(simulate):
    sim = simulate(8, (160, 96), size=1.15, field_of_view=120)
    calibration = calibrate(sim.kspace)
    one, two = (espirit(calibration, (120, 96), num_sets=n).maps for n in (1, 2))
    assert unexplained(sim.coil_images, one) > 0.07
    assert unexplained(sim.coil_images, two) < 0.01


@pytest.mark.parametrize("noise", [0.02, 0.3, 0.5])
def test_object_larger_than_the_field_of_view_gets_two_sets(simulate, noise):
    sim = simulate(8, (160, 96), size=1.15, field_of_view=120, noise=noise)
    assert espirit(calibrate(sim.kspace), (120, 96), num_sets="auto").maps.shape[0] == 2


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_object_inside_the_field_of_view_gets_one_set(simulate, noise):
    sim = simulate(8, (128, 96), noise=noise)
    assert espirit(calibrate(sim.kspace), (128, 96), num_sets="auto").maps.shape[0] == 1


def test_same_call_same_bits_and_no_gradient(simulate):
    calibration = calibrate(simulate(4, (48, 48)).kspace).clone().requires_grad_()
    first, second = (espirit(calibration, (48, 48)).maps for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_bad_input(simulate):
    calibration = calibrate(simulate(2, (32, 32)).kspace)
    with pytest.raises(InputError, match="expected the complex calibration region"):
        espirit(calibration[0], (32, 32))
    with pytest.raises(InputError, match="smaller than the window"):
        espirit(calibration[:, :5], (32, 32))
    with pytest.raises(NumericalError, match="zero everywhere"):
        espirit(torch.zeros_like(calibration), (32, 32))
    with pytest.raises(NumericalError, match="NaN or Inf"):
        espirit(calibration * torch.inf, (32, 32))
    for options in ({"kernel_size": 1}, {"threshold": 1.0}, {"crop": -0.1}, {"num_sets": 3}):
        with pytest.raises(UsageError, match=next(iter(options))):
            espirit(calibration, (32, 32), **options)
    with pytest.raises(UsageError, match="image_shape"):
        espirit(calibration, (0, 32))


@pytest.mark.parametrize(("coils", "shape"), [(8, (97, 75)), (4, (128, 96)), (16, (64, 64))])
def test_agrees_with_bart(simulate, ecalib, coils, shape):
    sim = simulate(coils, shape)
    middle = tuple(slice(n // 2 - 12, n // 2 + 12) for n in shape)  # BART takes the centre, wherever the peak is
    ours = espirit(sim.kspace[:, *middle], shape, threshold=BART_THRESHOLD).maps
    theirs = ecalib(sim.kspace, "-m1", "-r24")
    agreement = overlap(ours[0], theirs[0])[sim.support]
    assert float(agreement.mean()) > 0.9999
    assert float(agreement.min()) > 0.995
    cropped = (ours.abs().sum(1) > 0) != (theirs.abs().sum(1) > 0)
    assert float(cropped.float().mean()) < 0.01


def test_agrees_with_bart_on_two_sets(simulate, ecalib):
    sim = simulate(8, (160, 96), size=1.15, field_of_view=120)
    ours = espirit(calibrate(sim.kspace), (120, 96), threshold=BART_THRESHOLD, num_sets=2).maps
    theirs = ecalib(sim.kspace, "-m2")
    both = ((ours.abs().sum(1) > 0) & (theirs.abs().sum(1) > 0)).all(0)
    assert int(both.sum()) > 500
    # Single vectors are not defined where two eigenvalues coincide; their plane is.
    distance = (projector(ours) - projector(theirs))[both].abs().square().sum((-1, -2)) / 2
    assert float(distance.mean()) < 1e-3
    one = (ours[1].abs().sum(0) == 0) & (theirs[1].abs().sum(0) == 0) & (ours[0].abs().sum(0) > 0)
    one &= theirs[0].abs().sum(0) > 0
    assert float(overlap(ours[0], theirs[0])[one].mean()) > 0.9999
    assert unexplained(sim.coil_images, ours) < 1.1 * unexplained(sim.coil_images, theirs)


def compare_measured(kspace, ecalib):
    """Maps of measured data: ours against BART's, without the pixels where two sets mix."""
    shape = (kspace.shape[1], kspace.shape[2])
    maps, _ = espirit(calibrate(kspace), shape, threshold=BART_THRESHOLD, num_sets=2)
    theirs = ecalib(kspace, "-m1", "-r24")
    clear = (maps[0].abs().sum(0) > 0) & (theirs[0].abs().sum(0) > 0) & (maps[1].abs().sum(0) == 0)
    assert float(clear.float().mean()) > 0.5
    return overlap(maps[0], theirs[0])[clear]


def test_measured_brain_4_coils(measured, kspace_of, ecalib):
    images = loadmat(measured("gpunufft_brain_4ch_full/img_brain_4ch.mat"))["img"]
    kspace = kspace_of(torch.from_numpy(images).permute(2, 0, 1)).to(torch.complex64)
    assert float(compare_measured(kspace, ecalib).mean()) > 0.999
    assert espirit(calibrate(kspace), (256, 256), num_sets="auto").maps.shape[0] == 1


def test_measured_brain_folded_gets_two_sets(measured, kspace_of):
    images = loadmat(measured("gpunufft_brain_4ch_full/img_brain_4ch.mat"))["img"]
    kspace = kspace_of(torch.from_numpy(images).permute(2, 0, 1))[:, ::2].to(torch.complex64)
    assert espirit(calibrate(kspace), (128, 256), num_sets="auto").maps.shape[0] == 2


def test_measured_brain_8_coils_poisson(measured, ecalib):
    kspace = torch.from_numpy(np.load(measured("sigpy_brain_8ch_R8/cartesian_ksp.npy")))
    assert find_calibration_region(kspace).shape == (24, 24)
    assert float(compare_measured(kspace, ecalib).mean()) > 0.999
    assert espirit(calibrate(kspace), (230, 180), num_sets="auto").maps.shape[0] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_maps_on_cuda(simulate):
    sim = simulate(8, (97, 75))
    calibration = calibrate(sim.kspace)
    on_cpu = espirit(calibration, (97, 75), num_sets=2).maps
    on_gpu = espirit(calibration.cuda(), (97, 75), num_sets=2).maps
    assert on_gpu.is_cuda
    assert float(overlap(on_gpu.cpu()[0], on_cpu[0])[sim.support].min()) > 0.9999
