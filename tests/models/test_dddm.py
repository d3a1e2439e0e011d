"""The Directly Denoising Diffusion Model: Gaussian data whose best estimate is known, and small reconstructions."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import nn

from medrecon.complex import from_channels, to_channels
from medrecon.datasets import Source, TrainingBatch
from medrecon.errors import InputError, OperatorError, UsageError
from medrecon.models import UNetBaseline, build_model
from medrecon.models.dddm import DirectlyDenoisingModel
from medrecon.models.dddm_loss import dddm_loss, mean_square, pseudo_lpips
from medrecon.models.dddm_sampling import DDDMSteps, generate, improved
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.models.estimate_store import MemmapEstimateStore
from medrecon.models.estimates import RecomputedEstimate
from medrecon.models.inverse_problem import InverseProblem
from medrecon.models.pseudo_huber import pseudo_huber
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, ParallelBeam2D


def draw(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def embedded(times):
    """Sines and cosines of the time, (B, 16)."""
    angles = math.pi / 2 * times[:, None] / 1000 * 2.0 ** torch.arange(8)
    return torch.cat([angles.sin(), angles.cos()], 1)


class TestScheduler:
    def test_variance_preserving_is_that_of_diffusers(self):
        ours, theirs = DDDMScheduler(400), DDPMScheduler(400, 0.1 / 400, 20 / 400)
        x, z, times = draw(5, 1, 4, 3), draw(5, 1, 4, 3, seed=2), torch.tensor([0, 1, 50, 300, 399])
        assert torch.allclose(ours.add_noise(x, z, times), theirs.add_noise(x, z, times), atol=1e-5)
        assert float(ours.signals[-1] ** 2) == pytest.approx(4e-5, rel=0.1)
        assert torch.equal(ours.scale_model_input(x, times), x * 1.0)

    def test_variance_exploding(self):
        """σ in geometric progression; without a correct F nothing is said at σ_max, and x_t comes through at σ_min."""
        scheduler = DDDMScheduler(100, "ve")
        ratios = scheduler.sigmas[1:] / scheduler.sigmas[:-1]
        assert torch.allclose(ratios, ratios[:1].expand(99))
        x, z, model = torch.ones(2, 1, 2, 2), 3 * torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 7.0)
        times = torch.tensor([0, 99])
        noisy = scheduler.add_noise(x, z, times)
        assert noisy[:, 0, 0, 0].tolist() == pytest.approx([1.03, 151])
        assert scheduler.clean(model, noisy, times)[:, 0, 0, 0].tolist() == pytest.approx([1.03, 7 + 144 * 0.01 / 50])
        assert scheduler.init_noise_sigma == 50
        assert float(scheduler.scale_model_input(noisy, times).abs().max()) < 3.1

    def test_no_time_is_out_of_range(self):
        """The strongest noise is met in training; the published code samples one step beyond it."""
        scheduler = DDDMScheduler(7, beta_max=5.0)
        times = scheduler.draw_times(2000)
        assert set(times.tolist()) == set(range(7))
        assert scheduler.last_times(3).tolist() == [6, 6, 6]
        assert len(scheduler) == 7

    def test_config(self, tmp_path):
        DDDMScheduler(50, "ve", sigma_max=20.0).save_pretrained(tmp_path)
        back = DDDMScheduler.from_pretrained(tmp_path)
        assert (back.process, len(back), back.init_noise_sigma) == ("ve", 50, 20.0)

    def test_messages(self):
        with pytest.raises(UsageError, match="process must be one of vp, ve, got 'sub-vp'"):
            DDDMScheduler(process="sub-vp")
        with pytest.raises(UsageError, match="at least 2 noise levels, got 1"):
            DDDMScheduler(1)
        for wrong in ({"beta_min": 0}, {"beta_max": 2000}):
            with pytest.raises(UsageError, match="0 < beta_min < beta_max <= 1000, the number of noise levels, got"):
                DDDMScheduler(**wrong)
        with pytest.raises(UsageError, match="0 < sigma_min < sigma_max, got 60 and 50"):
            DDDMScheduler(process="ve", sigma_min=60)


class TestDistances:
    def test_pseudo_huber(self):
        x, y = draw(3, 2, 5, 4).double(), draw(3, 2, 5, 4, seed=2).double()
        for k in range(3):
            wanted = (math.sqrt(float((x[k] - y[k]).square().sum()) + 0.09) - 0.3) / math.sqrt(40)
            assert float(pseudo_huber(x, y, 0.3)[k]) == pytest.approx(wanted)
        same = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(pseudo_huber(same, x, 0.3).sum(), same)
        assert not gradient.any()

    def test_pseudo_huber_messages(self):
        with pytest.raises(UsageError, match=r"one shape, got \(2, 3\) and \(2, 4\)"):
            pseudo_huber(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
        with pytest.raises(UsageError, match="c must be a number above 0, got 0"):
            pseudo_huber(torch.zeros(2, 3), torch.zeros(2, 3), 0)

    def test_pseudo_lpips(self):
        x, y = draw(3, 1, 4, 4), draw(3, 1, 4, 4, seed=2)
        found = pseudo_lpips(mean_square, 0.1)(x, y)
        assert torch.allclose(found, (mean_square(x, y) + 0.01).sqrt() - 0.1)
        with pytest.raises(UsageError, match=r"one number a sample, \(3,\), got \(3, 1, 1, 1\)"):
            pseudo_lpips(lambda x, y: (x - y).mean((1, 2, 3), keepdim=True), 0.1)(x, y)
        with pytest.raises(UsageError, match="c must be a number above 0, got -1"):
            pseudo_lpips(mean_square, -1)


# -- Gaussian data: the least possible error is known ------------------------------------------------------------

COUNT, WIDTH, BATCH, STEPS = 4096, 160, 512, 800
VARIANCES = 10 ** torch.linspace(-1.6, 0, 8)


def gaussian(count, generator):
    """Draw from N(0, Q diag(s²) Qᵀ), (count, 8)."""
    turn = torch.linalg.qr(draw(8, 8, seed=0)).Q
    return torch.randn(count, 8, generator=generator) * VARIANCES.sqrt() @ turn.T


class VectorNetwork(nn.Module):
    """f(e, x_t, t) of vectors of 8 numbers."""

    def __init__(self):
        super().__init__()
        self.scheduler = DDDMScheduler()
        self.time, self.first, self.last = nn.Linear(16, WIDTH), nn.Linear(16, WIDTH), nn.Linear(WIDTH, 8)
        self.middle = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        nn.init.zeros_(self.last.weight)

    def forward(self, estimate, x, times):
        h = F.silu(self.first(torch.cat([estimate, x], 1)) + self.time(embedded(times)))
        for layer in self.middle:
            h = h + F.silu(layer(h))
        return self.scheduler.clean(self.last(h), x, times)


class GroundTruthStore(MemmapEstimateStore):
    """What the published code does: it keeps the image itself."""

    def contexts(self, f, images, start, times, scheduler, sources):
        found = super().contexts(f, images, start, times, scheduler, sources)
        super().keep(images, sources)
        return found

    def keep(self, estimates, sources):
        pass


def trained_on_gaussians(policy):
    """Return a network after 800 steps, and the mean loss of the last 20."""
    torch.manual_seed(0)
    network, data = VectorNetwork(), gaussian(COUNT, torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, 4e-5)
    losses = []
    while len(losses) < STEPS:
        for places in torch.randperm(COUNT).split(BATCH):
            x, sources = data[places], [Source("v", place) for place in places.tolist()]
            start = torch.randn_like(x)
            loss = dddm_loss(
                network, x, start, network.scheduler, distance=mean_square, estimates=policy, sources=sources
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return network.eval(), sum(losses[-20:]) / 20


@torch.no_grad()
def errors(network):
    """Return error / least possible error at t = 250, 500, 750: after a step from noise, and with a second x_t."""
    generator, scheduler = torch.Generator().manual_seed(2), network.scheduler
    found = []
    for time in (250, 500, 750):
        x, times = gaussian(4000, generator), torch.full((4000,), time)
        one, two = (scheduler.add_noise(x, torch.randn(x.shape, generator=generator), times) for _ in range(2))
        snr = float(scheduler.signals[time] / scheduler.sigmas[time]) ** 2
        least = float((1 / (1 / VARIANCES + snr)).mean())
        first = network(torch.randn(x.shape, generator=generator), one, times)
        second = network(first, two, times)
        found.append([float((estimate - x).square().mean()) / least for estimate in (first, second)])
    return torch.tensor(found).T


def is_best(first, second):
    """Apply the thresholds."""
    return bool((first < 1.15).all()) and float(second[0]) < 1


@pytest.mark.slow
class TestGaussian:
    @pytest.mark.parametrize("name", ["recompute", "store"])
    def test_best_possible_estimate(self, name, tmp_path):
        store = MemmapEstimateStore(tmp_path / "e.npy", COUNT, (8,), start_share=0.5)
        network, loss = trained_on_gaussians(RecomputedEstimate() if name == "recompute" else store)
        first, second = errors(network)
        assert is_best(first, second), (first, second)
        assert loss > 0.18

    @pytest.mark.parametrize("kind", [MemmapEstimateStore, GroundTruthStore])
    def test_stores_that_leak_fail(self, kind, tmp_path):
        """Without fresh starts among the estimates the network copies them: a small loss, and a wrong step one."""
        network, loss = trained_on_gaussians(kind(tmp_path / "e.npy", COUNT, (8,), start_share=0.0))
        first, second = errors(network)
        assert not is_best(first, second)
        assert bool((first > 2).all()), first
        assert loss < 0.1


# -- reconstruction of 16 x 16 phantoms --------------------------------------------------------------------------

SIDE = 16


class FlatNetwork(nn.Module):
    """A perceptron in the place of the U-Net, which would learn too slowly here: F([x_t, e, A⁺y], t)."""

    def __init__(self, width=384):
        super().__init__()
        pixels = 2 * SIDE**2
        self.time, self.gate = nn.Linear(16, width), nn.Linear(16, 1)
        self.first, self.last = nn.Linear(3 * pixels, width), nn.Linear(width, pixels)
        self.linear = nn.Linear(pixels, pixels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(3)
        )
        for layer in (self.gate, self.last, self.linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.ones_(self.gate.bias)

    def forward(self, x, times):
        time = embedded(times)
        h = F.silu(self.first(x.flatten(1)) + self.time(time))
        for block in self.blocks:
            h = h + block(h)
        found = (self.last(h) + self.linear(x[:, 4:].flatten(1))).reshape(-1, 2, SIDE, SIDE)
        return found + self.gate(time)[..., None, None] * x[:, :2]


def phantoms(count, seed):
    """Draw four soft ellipses each, with a phase, complex (count, 1, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    def ellipse(value, size, place):
        a, b, left, down, angle = uniform(*size), uniform(*size), uniform(*place), uniform(*place), uniform(0, math.pi)
        along = (x - left) * angle.cos() + (y - down) * angle.sin()
        across = (y - down) * angle.cos() - (x - left) * angle.sin()
        distance = (1 - torch.hypot(along / a, across / b)) * torch.minimum(a, b) * SIDE
        return uniform(*value) * distance.sigmoid()

    image = ellipse((0.4, 0.8), (0.6, 0.9), (-0.1, 0.1))
    for _ in range(3):
        image = image + ellipse((-0.4, 0.4), (0.15, 0.4), (-0.4, 0.4))
    phase = 0.6 * (uniform(-1, 1) + uniform(-1, 1) * x + uniform(-1, 1) * y)
    return torch.polar(image.clamp(0, 1), phase)[:, None]


def psnr(images, truth):
    return float(-10 * (images - truth).abs().square().flatten(1).mean(1).log10().mean())


def wiener(operator, train, y):
    """Return the best linear estimate, with mean and covariance of the training images."""
    samples = to_channels(train).flatten(1).double()
    mean, unit = samples.mean(0), torch.eye(samples.shape[1]).reshape(-1, 2, SIDE, SIDE)
    covariance = (samples - mean).T @ (samples - mean) / len(samples)
    matrix = to_channels(operator(from_channels(unit))).flatten(1).T.double()
    measured = matrix.abs().sum(1) > 0
    matrix, data = matrix[measured], to_channels(y).flatten(1).double()[:, measured]
    system = matrix @ covariance @ matrix.T + 1e-6 * torch.eye(len(matrix))
    images = mean + (data - matrix @ mean) @ torch.linalg.solve(system, matrix @ covariance)
    return from_channels(images.reshape(-1, 2, SIDE, SIDE).float())


def reconstructions(iterations):
    """Return the PSNR (dB) of what is compared in docs/dddm.md, by name, or steps of the model; and its residuals."""
    mask = torch.zeros(SIDE, dtype=torch.bool)
    mask[[3, 7, 8, 9]] = True
    operator = CartesianMRI(mask.expand(SIDE, SIDE).clone())
    train, truth = phantoms(8192, 1), phantoms(512, 2)
    y = operator(truth)
    mean = train.mean(0, keepdim=True).expand_as(truth)
    found = {
        "zero-filled": psnr(operator.adjoint(y), truth),
        "mean fill": psnr(operator.project(mean, y), truth),
        "Wiener": psnr(wiener(operator, train, y), truth),
    }
    torch.manual_seed(0)
    model = DirectlyDenoisingModel(2, widths=[8, 16], groups=4, process="vp", intensity=1.0, peak=1.0)
    model.unet = FlatNetwork()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, 2e-5)
    for _ in range(iterations):
        x = train[torch.randint(len(train), (128,))]
        loss = model.training_loss(TrainingBatch(operator(x), operator, x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    residuals = []
    for steps in (1, 2, 3):
        image = model.reconstruct(y, operator, DDDMSteps(steps), generator=torch.Generator().manual_seed(0))
        found[steps] = psnr(image, truth)
        residuals.append(float((operator(image) - y).norm() / y.norm()))
    return found, residuals


@pytest.mark.slow
def test_reconstruction():
    """4x Cartesian MRI with data consistency in the loop, shortly trained: better than what needs no training."""
    found, residuals = reconstructions(300)
    assert max(residuals) < 1e-5
    assert found[1] >= found["zero-filled"] + 5
    assert found[1] >= found["mean fill"] + 2
    assert found[2] >= found[1] - 0.1


@pytest.mark.slow
def test_reconstruction_passes_the_bar():
    """A learned method is worth its training where it beats the best linear one; a second call does no harm then."""
    found, _ = reconstructions(1500)
    assert found[2] >= found["Wiener"]
    assert found[2] >= found[1]


# -- the model ---------------------------------------------------------------------------------------------------


def multi_coil():
    maps = draw(1, 3, 20, 14, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = torch.arange(14).remainder(2).eq(0).expand(20, 14).clone()
    mask[:, 6:9] = True
    return CartesianMRI(mask, maps)


OPERATORS = {
    "single-coil": (lambda: CartesianMRI(draw(16, 12) < 0.3), 2, True),
    "multi-coil": (multi_coil, 2, False),
    "ct": (lambda: ParallelBeam2D((1, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1, False),
    "block-cs": (lambda: BlockCompressedSensing((1, 18, 13), 0.4, block_size=8), 1, True),
    "inpainting": (lambda: Inpainting(draw(1, 9, 7) < 0.5), 1, True),
    "two images": (lambda: ParallelBeam2D((2, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1, False),
}


def perturbed(channels=1, **parameters):
    """A model away from its start."""
    torch.manual_seed(0)
    model = build_model("dddm", image_channels=channels, preset="tiny", parameters=parameters)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model.eval()


def measured(operator, count=2):
    x = draw(count, *operator.image_shape, dtype=operator.image_dtype).abs().to(operator.image_dtype)
    with torch.no_grad():
        return TrainingBatch(operator(x), operator, x, tuple(Source("v", k) for k in range(count)))


class TestModel:
    @pytest.mark.parametrize("process", ["vp", "ve"])
    @pytest.mark.parametrize("conditional", [True, False])
    @pytest.mark.parametrize("name", OPERATORS)
    def test_any_operator(self, name, conditional, process):
        build, channels, exact = OPERATORS[name]
        model, batch = perturbed(channels, conditional=conditional, process=process), measured(build())
        loss = model.training_loss(batch)
        loss.backward()
        assert bool(torch.isfinite(loss))
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert bool(torch.isfinite(parameter.grad).all()), key
        image = model(batch.measurements, batch.operator)
        assert image.shape == batch.target.shape
        assert image.dtype == batch.operator.image_dtype
        assert bool(torch.isfinite(image.abs()).all())
        residual = float((batch.operator(image) - batch.measurements).norm() / batch.measurements.norm())
        assert residual < 1e-5 or not exact

    def test_the_formula_of_a_step(self):
        """Two steps written out, for a real image and for the data of a mask."""
        model, operator = perturbed(process="vp", intensity=0.5), Inpainting(draw(1, 9, 7) < 0.5)
        y = measured(operator).measurements
        unit, known = 0.5 * 2.0, operator.mask > 0
        data = 2 * y / unit - 1
        start = torch.where(known, data, torch.full_like(y, -1.0))
        noise = torch.randn(y.shape[1:], generator=torch.Generator().manual_seed(4)).expand(y.shape)  # one for all
        estimate, times = start, torch.full((2,), 19)
        with torch.no_grad():
            for _ in range(2):
                output = model.unet(torch.cat([noise, estimate, start], 1), times)
                estimate = torch.where(known, data, noise - output)
            found = model.reconstruct(y, operator, DDDMSteps(2), generator=torch.Generator().manual_seed(4))
        assert torch.allclose(found, unit * (estimate + 1) / 2, atol=1e-5)

    def test_training_has_the_data_consistency_of_use(self):
        """With everything measured nothing is left to learn; without the data in the loop there would be."""
        operator = Inpainting(torch.ones(1, 8, 8))
        batch = measured(operator)
        model = perturbed()
        assert float(model.training_loss(batch).detach()) < 1e-6
        assert float(perturbed(conditional=False).training_loss(batch).detach()) > 0.1
        assert model.unet.net.conv_in.in_channels == 3

    def test_noise_softens_the_data(self):
        """λ = error² / (error² + σ_y²), with the noise of the configuration where none is given."""
        operator = Inpainting(draw(1, 9, 7) < 0.5)
        batch = measured(operator)
        problem = InverseProblem(batch.measurements, operator, operator.initial(batch.measurements), 0.2)
        model = perturbed(error=0.1)
        assert model._share(problem) == pytest.approx(0.2)
        start = model.start(problem, None)
        f, x, times = model.estimator(problem, start), draw(2, 1, 9, 7, seed=5), torch.tensor([3, 4])
        with torch.no_grad():
            free = model.estimate(start, x, times, start)
            wanted = free - 0.2 * operator.mask * (free - batch.measurements)
            assert torch.allclose(f(start, x, times), wanted, atol=1e-6)
            noisy = perturbed(noise=0.1)
            found = noisy.reconstruct(*batch[:2], DDDMSteps(), noise=0.1, generator=torch.Generator().manual_seed(0))
            assert torch.equal(noisy(*batch[:2]), found)

    def test_save_and_load(self, tmp_path):
        model, batch = perturbed(2, process="vp", noise=0.02), measured(multi_coil())
        model.save(tmp_path)
        back = DirectlyDenoisingModel.load(tmp_path).eval()
        assert torch.equal(back(*batch[:2]), model(*batch[:2]))
        assert back.scheduler.process == "vp"
        with pytest.raises(InputError, match="describes a DirectlyDenoisingModel, expected UNetBaseline"):
            UNetBaseline.load(tmp_path)

    def test_units_and_neighbours(self):
        """Only the noise is drawn for a batch as a whole."""
        model, operator = perturbed(2), multi_coil()
        y = measured(operator, 3).measurements
        image = model(y, operator)
        assert float((model(1e-8 * y, operator) / 1e-8 - image).norm() / image.norm()) < 1e-4
        alone = model(y[:1], operator)
        assert float((alone - image[:1]).norm() / alone.norm()) < 1e-4
        assert not model(torch.zeros_like(y), operator).any()

    def test_training_lowers_the_loss(self):
        torch.manual_seed(0)
        model, batch = DirectlyDenoisingModel.from_preset("tiny"), measured(OPERATORS["inpainting"][0](), 32)
        optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model.training_loss(batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-8:]) < 0.8 * sum(losses[:8])

    def test_precision(self):
        model, batch = perturbed(2), measured(multi_coil())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.training_loss(batch)
        assert loss.dtype == torch.float32
        assert bool(torch.isfinite(loss))

    def test_presets(self):
        sizes = {
            name: sum(p.numel() for p in DirectlyDenoisingModel.from_preset(name).parameters())
            for name in ("tiny", "small", "base")
        }
        assert sizes["tiny"] < 100_000 < sizes["small"] < 3_000_000 < 10_000_000 < sizes["base"]

    def test_progress(self):
        seen = []
        operator = Inpainting(draw(1, 9, 7) < 0.5)
        perturbed().reconstruct(
            measured(operator).measurements, operator, DDDMSteps(3), progress=lambda *done: seen.append(done)
        )
        assert seen == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"policy": "store"}, r"policy must be one of recompute, none, got 'store'; .* model\.estimates = Memmap"),
            ({"loss": "l1"}, "loss must be one of pseudo-huber, l2 with huber > 0, got 'l1'"),
            ({"huber": 0.0}, "huber > 0, got 'pseudo-huber' and 0.0"),
            ({"noise": -1.0}, "noise lies between 0 and 1 and error is above 0, got -1.0"),
            ({"steps": 0}, "steps starts at 1, got 0"),
            ({"process": "x"}, "process must be one of vp, ve, got 'x'"),
        ],
    )
    def test_wrong_configuration(self, wrong, message):
        with pytest.raises(UsageError, match=message):
            build_model("dddm", image_channels=1, preset="tiny", parameters=wrong)

    def test_messages(self):
        model, batch = perturbed(), measured(Inpainting(draw(1, 9, 7) < 0.5))
        with pytest.raises(UsageError, match="a conditional model is trained with measurements: use training_loss"):
            model.image_loss(batch.target)
        with pytest.raises(UsageError, match="has a loss of its own, got 'ssim'; remove the key"):
            model.training_loss(batch, "ssim")
        with pytest.raises(UsageError, match="makes images of measurements only; train one with conditional=False"):
            model.generate(1, (8, 8))
        with pytest.raises(OperatorError, match=r"3 real channels .* Inpainting"):
            perturbed(3)(*batch[:2])


class TestSampling:
    def test_generate(self):
        """One noise for all steps, clipped estimates, noise as the first of them."""
        model = perturbed(conditional=False, process="vp")
        found = model.generate(2, (9, 7), steps=2, generator=torch.Generator().manual_seed(0))
        again = torch.Generator().manual_seed(0)
        start, noise = (torch.randn(2, 1, 9, 7, generator=again) for _ in range(2))
        times = torch.full((2,), 19)
        with torch.no_grad():
            estimate = model.estimate(start, noise, times).clamp(-1, 1)
            assert torch.allclose(found, model.estimate(estimate, noise, times).clamp(-1, 1))

    def test_any_function(self):
        """Also vectors, and the noise of the variance exploding process."""
        scheduler = DDDMScheduler(10, "ve")
        found = generate(lambda e, x, t: x / 1e3 + e / 1e3, (500, 3), scheduler, steps=1)
        assert float(found.std()) == pytest.approx(0.05, rel=0.2)
        times = []
        improved(lambda e, x, t: times.append(t.tolist()) or e, found[:2], found[:2], scheduler, 2)
        assert times == [[9, 9], [9, 9]]

    def test_loss_of_the_unconditional_model(self):
        """Without measurements the batch sets no more than the intensity."""
        model, batch = perturbed(conditional=False, intensity=0.5, loss="l2"), measured(Inpainting(draw(1, 9, 7) < 0.5))
        torch.manual_seed(3)
        found = model.training_loss(batch)
        torch.manual_seed(3)
        assert torch.equal(found, model.image_loss(2 * batch.target - 1))

    def test_steps(self):
        with pytest.raises(UsageError, match="DDDMSteps: steps starts at 1, got 0"):
            DDDMSteps(0)
