"""Bidirectional consistency: Gaussian data, whose flow map is known, and the ways to get it wrong."""

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from medrecon.errors import InputError, UsageError
from medrecon.models import build_model
from medrecon.models.bcm import BidirectionalConsistencyModel
from medrecon.models.bcm_loss import bidirectional_consistency_loss, consistency_terms, frozen
from medrecon.models.bcm_restoration import BCMSweeps
from medrecon.models.bcm_sampling import follow, generate, generate_anew, interpolate, invert, restore, slerp
from medrecon.models.bcm_scheduler import BCMScheduler, times_of
from medrecon.models.karras import discretization_steps, draw_times, karras_grid
from medrecon.models.prior_unet import PriorUNet
from medrecon.models.pseudo_huber import pseudo_huber
from medrecon.models.qkv_attention import NormalizedAttention
from medrecon.operators import Inpainting
from medrecon.pipelines.training.average import WeightAverage

SIZE = 8
WIDTH = 192
BATCH = 512


class FlowNetwork(nn.Module):
    """F of vectors: three residual blocks, modulated by both times; zero before training."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(2, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.first = nn.Linear(SIZE, WIDTH)
        self.inner = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.outer = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.film = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(3))
        self.last = nn.Linear(WIDTH, SIZE)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x, t, u):
        e = nn.functional.silu(self.time(torch.stack((t, u), 1) / 1000))
        h = self.first(x)
        for inner, outer, film in zip(self.inner, self.outer, self.film, strict=True):
            gain, shift = film(e).chunk(2, 1)
            h = h + outer(nn.functional.silu(inner(h) * (1 + gain) + shift))
        return self.last(h)


class GaussianData:
    """N(μ, Q diag(s²) Qᵀ), s from .05 to 1, and its exact flow map."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.mean = 0.3 * torch.randn(SIZE, generator=generator)
        self.rotation = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator))[0]
        self.deviations = torch.logspace(math.log10(0.05), 0, SIZE)

    def draw(self, count, generator=None):
        noise = torch.randn(count, SIZE, generator=generator)
        return self.mean + noise * self.deviations @ self.rotation.T

    def flow(self, x, t, u):
        t, u = times_of(x, t)[:, None], times_of(x, u)[:, None]
        gains = ((self.deviations**2 + u**2) / (self.deviations**2 + t**2)).sqrt()
        return self.mean + (x - self.mean) @ self.rotation * gains @ self.rotation.T


def two_time(scheduler, network):
    return lambda x, t, u: scheduler.flow(network, x, t, u)


def one_time(scheduler, network):
    """The scalings of a consistency model, which know of no u."""

    def f(x, t, u):
        into = scheduler.scalings(t, u).into[:, None]
        above, s = t[:, None] - scheduler.sigma_min, scheduler.sigma_data
        skip, out = s**2 / (above**2 + s**2), s * above * into
        return skip * x + out * network(into * x, scheduler.c_noise(t), scheduler.c_noise(u))

    return f


def trained(variant="right", iterations=400, end_times="lognormal"):
    """Return data, scheduler and the averaged flow map after a training run."""
    torch.manual_seed(0)
    data, scheduler, network = GaussianData(), BCMScheduler(), FlowNetwork()
    average = FlowNetwork()
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.RAdam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: 0.02 + 0.98 * (1 + math.cos(math.pi * k / iterations)) / 2
    )
    build = one_time if variant == "one-time scalings" else two_time
    c = 0.00054 * SIZE**0.5
    for k in range(iterations):
        grid = scheduler.grid(discretization_steps(k, iterations, 10, 160)).float()
        times = draw_times(grid, BATCH, end_times)
        live, still = build(scheduler, network), build(scheduler, frozen(network))
        if variant == "detached":
            still = lambda b, t, u, live=live: live(b.detach(), t, u)  # noqa: E731
        x = data.draw(BATCH)
        consistency, trajectory = consistency_terms(
            (live, still), x, times.lower, times.upper, times.end, torch.randn_like(x), c
        )
        loss = consistency if variant == "consistency only" else consistency + trajectory
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        schedule.step()
        decay = min(0.99, (1 + k) / (10 + k))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
    return data, scheduler, build(scheduler, average)


@torch.no_grad()
def judged(data, scheduler, f):
    """Return the figures that tell a flow map from something else."""
    generator = torch.Generator().manual_seed(11)
    low, top, middle, small = scheduler.sigma_min, scheduler.sigma_max, 2.0, 0.07
    x = data.draw(4096, generator)
    variance = (x - data.mean).square().mean()
    noise = torch.randn(x.shape, generator=generator)
    made, exact = generate(f, noise, (top, low)), data.flow(top * noise, top, low)
    up1 = invert(f, x, (small, top), generator)
    up2 = invert(f, x, (small, middle, top), generator)
    backs = {"1+1": (up1, (top, low)), "2+1": (up2, (top, low)), "2+2": (up2, (top, middle, low))}
    figures = {name: float((follow(f, z, times) - x).square().mean() / variance) for name, (z, times) in backs.items()}
    blind = x + small * torch.randn(x.shape, generator=generator)
    wanted = data.flow(blind, small, top)
    return {
        **figures,
        "generation": float((made - exact).norm(dim=1).mean() / (exact - data.mean).norm(dim=1).mean()),
        "inversion": float((follow(f, blind, (small, top)) - wanted).norm(dim=1).mean() / wanted.norm(dim=1).mean()),
        "unrelated": float((made - x).square().mean() / variance),
        "deviation": float(up1.std() / top),
    }


@pytest.mark.slow
class TestGaussianFlow:
    """Generation does not tell right from wrong here; the way there and back does."""

    def test_learned(self):
        figures = judged(*trained())
        assert figures["generation"] < 0.2
        assert figures["1+1"] < 0.25
        assert figures["2+2"] < min(0.1, figures["1+1"])
        assert figures["unrelated"] > 1
        assert 0.75 < figures["deviation"] < 1.35

    @pytest.mark.parametrize("variant", ["consistency only", "detached", "one-time scalings"])
    def test_wrong_variants_do_not_learn_to_invert(self, variant):
        """After 200 iterations the right loss has reached 0.44, 0.22 and 0.22; after 400 it is 6 times ahead."""
        figures = judged(*trained(variant, iterations=200))
        assert figures["1+1"] > 0.65
        assert figures["2+2"] > 0.28
        assert figures["deviation"] < 0.16

    def test_exact_flow_passes(self):
        data = GaussianData()
        figures = judged(data, BCMScheduler(), data.flow)
        assert max(figures[name] for name in ("1+1", "2+1", "2+2")) < 0.03
        assert figures["generation"] < 1e-4
        assert 0.9 < figures["deviation"] < 1.1


class TestScalings:
    def test_formulas(self):
        scheduler = BCMScheduler(sigma_data=0.7)
        t, u = (torch.rand(20, dtype=torch.float64) * 80 for _ in range(2))
        skip, out, into = scheduler.scalings(t, u)
        assert torch.allclose(skip, (t * u + 0.49) / (t**2 + 0.49), rtol=1e-14)
        assert torch.allclose(out, 0.7 * (t - u) / torch.sqrt(t**2 + 0.49), rtol=1e-13)
        assert torch.allclose(into, (t**2 + 0.49) ** -0.5, rtol=1e-14)
        assert torch.allclose(scheduler.c_noise(t), 1000 * 0.25 * torch.log(t), rtol=1e-14)

    @pytest.mark.parametrize("t", [0.002, 0.07, 1.0, 80.0])
    def test_boundary(self, t):
        model = shaken()
        x = torch.randn(2, 1, 9, 7) * max(t, 0.5)
        with torch.no_grad():
            assert torch.equal(model.f(x, t, t), x)
            untrained = BidirectionalConsistencyModel.from_preset("tiny").f(x, t, 3.0)
        assert torch.allclose(untrained, (t * 3 + 0.25) / (t**2 + 0.25) * x, rtol=1e-5)

    def test_small_end_times_are_edm(self):
        """c_skip and c_out of Karras et al., table 1."""
        t = torch.logspace(-2, 2, 9, dtype=torch.float64)
        skip, out, _ = BCMScheduler().scalings(t, torch.zeros_like(t))
        assert torch.allclose(skip, 0.25 / (t**2 + 0.25))
        assert torch.allclose(out, t * 0.5 / (t**2 + 0.25).sqrt())

    def test_round_trip_of_the_scheduler(self, tmp_path):
        BCMScheduler(0.01, 30.0, 0.4, 5.0).save_pretrained(tmp_path)
        again = BCMScheduler.from_pretrained(tmp_path)
        assert (again.sigma_min, again.sigma_max, again.sigma_data, again.rho) == (0.01, 30.0, 0.4, 5.0)
        assert torch.equal(again.grid(7), karras_grid(0.01, 30.0, 7, 5.0))
        x, z = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
        assert torch.equal(again.add_noise(x, z, torch.tensor([2.0, 3.0]))[1], x[1] + 3 * z[1])

    @pytest.mark.parametrize("wrong", [{"sigma_min": 0.0}, {"sigma_max": 0.001}, {"sigma_data": 0.0}, {"rho": -1.0}])
    def test_wrong_numbers(self, wrong):
        with pytest.raises(UsageError, match="BCMScheduler: expected 0 < sigma_min < sigma_max"):
            BCMScheduler(**wrong)


class TestLoss:
    def test_pseudo_huber(self):
        x, y = torch.randn(3, 2, 4, 5).double(), torch.randn(3, 2, 4, 5).double()
        norm = (x - y).flatten(1).norm(dim=1)
        assert torch.allclose(pseudo_huber(x, y, 0.3), ((norm**2 + 0.09).sqrt() - 0.3) / 40**0.5)
        assert pseudo_huber(x, x, 0.3).tolist() == [0.0] * 3

    def test_gradient_routing(self):
        """Of the trajectory term only the inner call has weights; the gradient reaches them through the outer one."""
        torch.manual_seed(0)
        network, scheduler = small_network(), BCMScheduler()
        x, z = torch.randn(5, SIZE).double(), torch.randn(5, SIZE).double()
        times = [torch.tensor(t).double() for t in ([0.5] * 5, [0.8] * 5, [3.0, 0.1, 0.5, 20.0, 0.002])]
        seen = []

        def f(network):
            return lambda *inputs: scheduler.flow(network, *inputs)

        def outer(b, t, u):
            seen.append(b)
            return f(frozen(network))(b, t, u)

        consistency, trajectory = consistency_terms((f(network), outer), x, *times, z, 0.01)
        found = torch.autograd.grad(trajectory.sum(), list(network.parameters()), retain_graph=True)
        assert seen[0].requires_grad
        target = f(network)(x + 0.5 * z, times[0], torch.full((5,), 0.002).double()).detach()

        def moved(weights):
            """The term when the inner call alone has these weights."""
            inner = scheduler.flow(
                lambda *inputs: torch.func.functional_call(network, weights, inputs), x + 0.8 * z, times[1], times[2]
            )
            c = f(network)(inner, times[2], torch.full((5,), 0.002).double())
            return (pseudo_huber(c, target, 0.01) / (times[1] - times[2]).abs()).sum()

        assert torch.allclose(moved(dict(network.named_parameters())), trajectory.sum())
        for (name, parameter), gradient in zip(network.named_parameters(), found, strict=True):
            direction = torch.randn_like(parameter)
            step = 1e-6 * direction
            with torch.no_grad():
                state = dict(network.named_parameters())
                slope = (moved({**state, name: parameter + step}) - moved({**state, name: parameter - step})) / 2e-6
            assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-7), name
        down = f(network)(x + 0.8 * z, times[1], torch.full((5,), 0.002).double())
        alone = torch.autograd.grad((pseudo_huber(down, target, 0.01) / 0.3).sum(), list(network.parameters()))
        found = torch.autograd.grad(consistency.sum(), list(network.parameters()))
        assert all(torch.allclose(a, b) for a, b in zip(alone, found, strict=True))

    def test_the_outer_call_gives_its_weights_nothing(self):
        network = small_network()
        x, t = torch.randn(3, SIZE).double().requires_grad_(), torch.ones(3).double()
        frozen(network)(x, t, t).sum().backward()
        assert x.grad is not None
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_a_module_is_frozen_by_itself(self):
        network = small_network()
        x, z = torch.randn(4, SIZE).double(), torch.randn(4, SIZE).double()
        times = [torch.full((4,), t).double() for t in (0.5, 0.8, 3.0)]
        terms = consistency_terms(network, x, *times, z, 0.01)
        pair = consistency_terms((network, frozen(network)), x, *times, z, 0.01)
        assert all(torch.equal(a, b) for a, b in zip(terms, pair, strict=True))
        loss = bidirectional_consistency_loss(network, x, *times, z, 0.01)
        assert torch.equal(loss, (terms[0] + terms[1]).mean())

    def test_passes_share_their_dropout_mask(self):
        masks = []

        def f(x, t, u):
            masks.append(nn.functional.dropout(torch.ones(64)))
            return x

        x, t = torch.randn(2, SIZE), torch.ones(2)
        for _ in range(2):
            bidirectional_consistency_loss((f, f), x, t, 2 * t, 3 * t, x, 0.1)
        assert all(torch.equal(mask, masks[0]) for mask in masks[1:4])
        assert not torch.equal(masks[4], masks[0])


def small_network():
    """Return a network of three smooth layers, in double precision."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(SIZE + 2, 16), nn.Linear(16, SIZE)

        def forward(self, x, t, u):
            return self.last(torch.tanh(self.first(torch.cat((x, torch.stack((t, u), 1) / 1000), 1))))

    return Small().double()


def shaken(**changes):
    """Return a tiny model whose weights are not those of the start."""
    torch.manual_seed(0)
    config = BidirectionalConsistencyModel.preset_config("tiny", parameters=changes)
    model = BidirectionalConsistencyModel(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


class TestModel:
    def test_start_from_a_consistency_model(self):
        """F is bit by bit that of the consistency model, whatever u; f differs by its factors."""
        torch.manual_seed(0)
        network = PriorUNet(1, 1, [8, 16], groups=4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model = shaken()
        model.start_from_consistency(network.state_dict())
        x, t = torch.randn(3, 1, 9, 7), torch.tensor([-1500.0, 0.0, 800.0])
        with torch.no_grad():
            wanted = network(x, t)
            for u in (-1553.0, 3.0, 1095.0):
                assert torch.equal(model.unet(x, t, torch.full((3,), u)), wanted)
        model.unet(x, t, t).sum().backward()
        learned = model.unet.net.class_embedding.linear_2.weight.grad
        assert bool(learned.any())  # the first layer is alive: what is 0 can be learned
        assert torch.equal(model.unet.net.class_embedding.linear_1.weight, network.net.time_embedding.linear_1.weight)

    def test_start_from_something_else(self):
        with pytest.raises(InputError, match=r"consistency model: .*expected those of a PriorUNet with the same"):
            shaken().start_from_consistency(PriorUNet(1, 1, [8, 16, 16], groups=4).state_dict())

    def test_loss_has_gradients_and_counts(self):
        model = shaken(total_batches=6, n_start=2, n_end=8, dropout=0.2)
        images = torch.rand(3, 1, 9, 7) * 2 - 1
        for count in range(1, 4):
            loss = model.train().image_loss(images)
            assert loss.ndim == 0
            assert int(model.batches) == count
        loss.backward()
        assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        model.eval().image_loss(images)
        assert int(model.batches) == 3

    def test_a_resumed_run_knows_where_it_was(self, tmp_path):
        model = shaken().train()
        model.image_loss(torch.rand(2, 1, 8, 8))
        average = WeightAverage(model, 0.9)
        model.image_loss(torch.rand(2, 1, 8, 8))
        average.update(model)
        assert int(average.model.batches) == 2
        for half in (False, True):
            average.model.save(tmp_path, half=half)
            assert int(BidirectionalConsistencyModel.load(tmp_path).batches) == 2

    def test_training_reaches_the_curriculum(self, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "medrecon.models.bcm.discretization_steps",
            lambda *numbers: seen.append(discretization_steps(*numbers)) or seen[-1],
        )
        model = shaken(total_batches=4, n_start=2, n_end=4).train()
        seen.clear()
        for _ in range(4):
            model.image_loss(torch.rand(2, 1, 8, 8))
        assert seen == [2, 2, 4, 4]

    def test_saved_and_loaded(self, tmp_path):
        model = shaken().eval()
        model.save(tmp_path)
        again = BidirectionalConsistencyModel.load(tmp_path)
        operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
        y = operator(torch.rand(2, 1, 9, 7))
        first, second = (
            m.reconstruct(y, operator, BCMSweeps(), generator=torch.Generator().manual_seed(3)) for m in (model, again)
        )
        assert torch.equal(first, second)
        assert again.scheduler.sigma_max == 20.0

    def test_attention_is_normalised(self):
        model = shaken(attention=[1])
        layers = [part for part in model.modules() if isinstance(part, Attention)]
        assert layers
        assert all(isinstance(layer.processor, NormalizedAttention) for layer in layers)
        with torch.no_grad():
            assert bool(torch.isfinite(model.f(torch.randn(1, 1, 9, 7), 1.0, 5.0)).all())

    @pytest.mark.parametrize("preset", ["small", "base", "tiny"])
    def test_presets(self, preset):
        with torch.device("meta"):
            model = BidirectionalConsistencyModel.from_preset(preset, image_channels=2)
        assert model.settings.end_times == "uniform"

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"end_times": "normal"}, "end_times: expected lognormal or uniform"),
            ({"n_end": 5}, "expected 1 <= first <= last"),
            ({"sigma_min": 30.0}, "expected 0 < sigma_min < sigma_max"),
            ({"huber": 0.0}, "huber: expected a number > 0"),
            ({"renoise": "much"}, "renoise is amplify or gaussian, got 'much'"),
        ],
    )
    def test_wrong_parameters(self, wrong, message):
        with pytest.raises(UsageError, match=f"model 'bcm': .*{message}"):
            build_model("bcm", image_channels=1, preset="tiny", parameters=wrong)


class TestSampling:
    """With the exact flow map of Gaussian data."""

    def test_generation(self):
        data, generator = GaussianData(), torch.Generator().manual_seed(0)
        noise = torch.randn(20_000, SIZE, generator=generator)
        covariance = data.rotation * data.deviations**2 @ data.rotation.T
        for times, zigzag in (
            ((80, 0.002), ()),
            ((80, 2.4, 0.002), ()),
            ((80, 0.002), ((0.1, 1.2),)),
            ((80, 3.0, 0.002), ((0.12, 0.4), (0.05, 0.2))),
        ):
            images = generate(data.flow, noise, times, zigzag, generator)
            assert torch.allclose(images.mean(0), data.mean, atol=0.03)
            assert torch.allclose(images.T.cov(), covariance, atol=0.03)
        anew = generate_anew(data.flow, noise, (80, 2.0, 0.5, 0.002), generator)
        assert torch.allclose(anew.T.cov(), covariance, atol=0.03)
        assert torch.allclose(
            generate(data.flow, noise, (80, 2.4, 0.002)), generate(data.flow, noise, (80, 0.002)), atol=1e-4
        )

    def test_calls(self):
        calls = []

        def f(x, t, u):
            calls.append((round(float(t[0]), 3), round(float(u[0]), 3)))
            return x

        generate(f, torch.zeros(1, 2), (80, 3.0, 0.002), [(0.12, 0.4)])
        assert calls == [(80, 3), (3, 0.002), (0.12, 0.4), (0.4, 0.002)]
        calls.clear()
        generate_anew(f, torch.zeros(1, 2), (80, 3.0, 0.002))
        assert calls == [(80, 0.002), (3, 0.002)]

    def test_inversion_and_back(self):
        data = GaussianData()
        x = data.draw(500, torch.Generator().manual_seed(1))
        latent = invert(data.flow, x, (0.01, 15, 80), torch.Generator().manual_seed(2))
        assert 0.9 < float(latent.std()) / 80 < 1.1
        back = follow(data.flow, latent, (80, 0.002))
        assert float((back - x).abs().max()) < 0.08
        assert torch.equal(restore(data.flow, x, (0.01, 15, 80), (80, 0.002), torch.Generator().manual_seed(2)), back)

    def test_restoration_draws_to_the_data(self):
        """Along the narrow directions of the law, what is foreign to it goes away."""
        data, generator = GaussianData(), torch.Generator().manual_seed(3)
        x = data.draw(2000, generator)
        damaged = x + 0.2 * torch.randn(x.shape, generator=generator)
        found = restore(data.flow, damaged, (0.2, 80), (80, 0.002), generator)
        assert float((found - x).square().mean()) < 1.5 * float((damaged - x).square().mean())
        narrow = [((image - data.mean) @ data.rotation)[:, 0].std() for image in (damaged, found)]
        assert float(narrow[1]) < 0.5 * float(narrow[0])

    def test_interpolation(self):
        data, generator = GaussianData(), torch.Generator().manual_seed(4)
        a, b = data.draw(2000, generator), data.draw(2000, generator)
        found = interpolate(data.flow, a, b, [0.0, 0.5, 1.0], (1e-3, 80), (80, 0.002), generator)
        assert float((found[0] - a).abs().max()) < 0.01
        assert float((found[2] - b).abs().max()) < 0.01
        covariance = data.rotation * data.deviations**2 @ data.rotation.T
        assert torch.allclose(found[1].T.cov(), covariance, atol=0.15)  # a mean of both would have half of it

    def test_slerp(self):
        a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        assert torch.allclose(slerp(a, b, 1 / 3), torch.tensor([[math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]]))
        assert torch.allclose(slerp(a, 3 * a, 0.25), 1.5 * a)
        assert torch.equal(slerp(a, b, 0.0), a)

    def test_wrong_times(self):
        with pytest.raises(UsageError, match="times: expected a first and a last one"):
            generate(GaussianData().flow, torch.zeros(1, SIZE), (80,))
        with pytest.raises(UsageError, match="the way down starts where the way up ends"):
            restore(GaussianData().flow, torch.zeros(1, SIZE), (0.1, 80), (20, 0.002))
