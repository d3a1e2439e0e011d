"""The Invertible Diffusion Model: gradients in every memory mode, any operator, any size, stable."""

import copy
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from medrecon.datasets import TrainingBatch
from medrecon.errors import OperatorError, UsageError
from medrecon.models import InvertibleDiffusionModel, transformer
from medrecon.models.injector import Injector
from medrecon.models.presets import preset
from medrecon.operators import (
    BlockCompressedSensing,
    CartesianMRI,
    Inpainting,
    LinearOperator,
    ParallelBeam2D,
    vstack,
)

MEMORIES = ["checkpoint", "min", "reversible"]


def draw(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Blur(LinearOperator):
    """A third party's plug-in: circular blur, no closed-form pseudo-inverse."""

    def __init__(self, shape, gain=1.0):
        super().__init__(shape, shape)
        self.gain = gain

    def _forward(self, x):
        return self.gain * (x + x.roll(1, -1) + x.roll(-1, -1) + x.roll(1, -2)) / 4

    def _adjoint(self, y):
        return self.gain * (y + y.roll(-1, -1) + y.roll(1, -1) + y.roll(-1, -2)) / 4


class Weighted(LinearOperator):
    """Pixel weights that are learned: a buffer that requires a gradient."""

    pinv_kind = "exact"

    def __init__(self, weights):
        super().__init__(tuple(weights.shape[1:]), tuple(weights.shape[1:]))
        self.register_buffer("weights", weights)

    def _forward(self, x):
        return x * self.weights

    def _adjoint(self, y):
        return y * self.weights

    def norm_bound(self):
        return torch.ones(1)


class OneWay(Blur):
    """An adjoint that is only approximate."""

    adjoint_matched = False
    pinv_kind = "approximate"

    def _adjoint(self, y):
        return self.gain * y


def multi_coil(size=(20, 14), sets=1):
    maps = draw(1, sets, 3, *size, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum((1, 2), keepdim=True).sqrt()
    mask = torch.zeros(size, dtype=torch.bool)
    mask[:, ::2] = mask[:, 6:9] = True
    return CartesianMRI(mask, maps if sets > 1 else maps[:, 0])


OPERATORS = {
    "block-cs": (lambda: BlockCompressedSensing((1, 18, 13), 0.4, block_size=8), 1),
    "inpainting": (lambda: Inpainting(torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0)) < 0.6), 3),
    "single-coil": (lambda: CartesianMRI(torch.arange(14).remainder(2).eq(0).expand(20, 14)), 2),
    "multi-coil": (multi_coil, 2),
    "two map sets": (lambda: multi_coil(sets=2), 2),
    "ct": (lambda: ParallelBeam2D((1, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1),
    "ct, three slices": (lambda: ParallelBeam2D((3, 15, 15), torch.linspace(0, 3, 9), detector_count=23), 1),
    "blur": (lambda: Blur((1, 12, 10)), 1),
    "approximate adjoint": (lambda: OneWay((1, 12, 10)), 1),
    "stack": (lambda: vstack([Blur((1, 12, 10)), Inpainting(torch.ones(1, 12, 10))]), 1),
}


def batch(operator, count=2, dtype=None):
    x = draw(count, *operator.image_shape, dtype=dtype or operator.image_dtype).abs()
    x = x.to(dtype or operator.image_dtype)
    with torch.no_grad():
        return TrainingBatch(operator(x), operator, x)


def gradient(model, data, memory):
    model.memory = memory
    model.zero_grad()
    loss = model.training_loss(data)
    loss.backward()
    lacking = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not lacking
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def relative(a, b):
    return float((a - b).norm() / b.norm())


class TestGradients:
    @pytest.mark.parametrize("steps", [1, 2, 3, 4])
    @pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_every_memory_mode(self, tiny, steps, dtype, bound):
        model = tiny(steps=steps, dtype=dtype)
        data = batch(BlockCompressedSensing((1, 18, 13), 0.4, block_size=8), dtype=dtype)
        wanted = gradient(model, data, "none")
        for memory in MEMORIES:
            assert relative(gradient(model, data, memory), wanted) < bound, memory

    @pytest.mark.parametrize("name", OPERATORS)
    def test_every_operator(self, tiny, name):
        build, channels = OPERATORS[name]
        model = tiny(image_channels=channels, steps=2)
        data = batch(build())
        wanted = gradient(model, data, "none")
        for memory in MEMORIES:
            assert relative(gradient(model, data, memory), wanted) < 2e-5, memory

    @pytest.mark.parametrize("memory", MEMORIES)
    def test_published_architecture(self, published_state, memory):
        from medrecon.models.published import from_published

        model = from_published(published_state(steps=2)).double()
        data = batch(BlockCompressedSensing((1, 16, 12), 0.4, block_size=8), dtype=torch.float64)
        assert relative(gradient(model, data, memory), gradient(model, data, "none")) < 1e-12

    @pytest.mark.parametrize("memory", MEMORIES)
    def test_of_measurements_and_operator(self, tiny, memory):
        """A learned sampling pattern gets its gradient, too."""
        model = tiny(steps=2, dtype=torch.float64, intensity=1.0)

        def run(memory):
            model.memory = memory
            weights = draw(1, 1, 8, 6, dtype=torch.float64).abs().requires_grad_()
            operator = Weighted(weights)
            y = draw(2, 1, 8, 6, dtype=torch.float64, seed=2).requires_grad_()
            return torch.cat([g.flatten() for g in torch.autograd.grad(model(y, operator).sum(), [y, weights])])

        assert relative(run(memory), run("none")) < 1e-12

    @pytest.mark.parametrize("memory", MEMORIES)
    def test_frozen_but_injectors(self, tiny, memory):
        model = tiny(steps=2, dtype=torch.float64)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".injectors." in name)
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        data = batch(Inpainting(torch.ones(1, 8, 6)), dtype=torch.float64)

        def run(memory):
            model.memory = memory
            return torch.cat([g.flatten() for g in torch.autograd.grad(model.training_loss(data), wanted)])

        assert relative(run(memory), run("none")) < 1e-12

    @pytest.mark.parametrize("memory", ["none", *MEMORIES])
    def test_passes(self, tiny, memory):
        """How often a layer runs in a training step: T, 2 T or 3 T times, no more."""
        model, count = tiny(steps=3), []
        layer = model.unet.down_blocks[0].resnets[0]
        layer.register_forward_hook(lambda *_: count.append(1))
        gradient(model, batch(Inpainting(torch.ones(1, 8, 6))), memory)
        assert len(count) == 3 * {"none": 1, "checkpoint": 2, "min": 3, "reversible": 3}[memory]

    @pytest.mark.parametrize("memory", ["none", *MEMORIES])
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at inner states
    def test_compiled_blocks(self, tiny, memory):
        model, data = tiny(steps=2, dtype=torch.float64), batch(Inpainting(torch.ones(1, 8, 6)), dtype=torch.float64)
        wanted = gradient(model, data, "none")
        model.compile_repeated_blocks(backend="aot_eager")
        assert relative(gradient(model, data, memory), wanted) < 1e-12

    @pytest.mark.parametrize("memory", ["none", *MEMORIES])
    def test_half_precision(self, tiny, memory):
        model = tiny(image_channels=2, steps=2)
        data = batch(multi_coil())
        wanted = gradient(model, data, "none")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradient(model, data, memory)
        assert relative(found, wanted) < 0.1

    @pytest.mark.parametrize("memory", ["none", *MEMORIES])
    def test_two_threads(self, tiny, memory):
        """One model, two operators, side by side."""
        model = tiny(steps=2, dtype=torch.float64)
        model.memory = memory
        data = [batch(Inpainting(draw(1, 8, 6, seed=n) > 0), dtype=torch.float64) for n in range(2)]
        parameters = list(model.parameters())

        def run(n):
            found = torch.autograd.grad(model.training_loss(data[n]), parameters)
            return torch.cat([g.flatten() for g in found])

        wanted = [run(n) for n in range(2)]
        with ThreadPoolExecutor(2) as pool:
            for n, found in zip([0, 1] * 4, pool.map(run, [0, 1] * 4), strict=True):
                assert relative(found, wanted[n]) < 1e-12

    def test_feed_forward_in_chunks(self, tiny, monkeypatch):
        monkeypatch.setattr(transformer, "_CHUNK_BYTES", 8 * 16 * 8 * 2 * 5)  # five tokens of two images
        model, data = tiny(steps=2, dtype=torch.float64), batch(Inpainting(torch.ones(1, 12, 10)), dtype=torch.float64)
        wanted = gradient(model, data, "none")
        for memory in MEMORIES:
            assert relative(gradient(model, data, memory), wanted) < 1e-12

    def test_gradient_scaler(self, tiny):
        model = tiny(steps=2)
        data = batch(Inpainting(torch.ones(1, 8, 6)))
        wanted = gradient(model, data, "none")
        model.memory = "min"
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer.zero_grad()
        scaler.scale(model.training_loss(data)).backward()
        scaler.unscale_(optimizer)
        assert relative(torch.cat([p.grad.flatten() for p in model.parameters()]), wanted) < 1e-5

    def test_small_v_is_not_inverted(self, tiny):
        model = tiny(steps=2, mix_bounds=(1e-4, 0.95), dtype=torch.float32)
        with torch.no_grad():
            for block in model.unet.blocks():
                block.v.theta.fill_(-9.0)
        data = batch(Inpainting(torch.ones(1, 8, 6)))
        assert relative(gradient(model, data, "reversible"), gradient(model, data, "none")) < 1e-5


class TestModel:
    @pytest.mark.parametrize("name", OPERATORS)
    def test_any_operator(self, tiny, name):
        build, channels = OPERATORS[name]
        operator = build()
        data = batch(operator)
        with torch.no_grad():
            image = tiny(image_channels=channels)(data.measurements, operator)
        assert image.shape == data.target.shape
        assert image.dtype == operator.image_dtype
        assert bool(torch.isfinite(image.abs()).all())

    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 30), (33, 64)])
    def test_any_size(self, tiny, size):
        operator = Inpainting(torch.ones(1, *size))
        assert gradient(tiny(steps=1), batch(operator), "min").isfinite().all()

    def test_a_sample_does_not_depend_on_its_neighbours(self, tiny):
        model, operator = tiny(image_channels=2), multi_coil()
        data = batch(operator, 3)
        y = data.measurements * torch.tensor([1.0, 1e-3, 50.0]).reshape(3, 1, 1, 1)
        with torch.no_grad():
            whole = model(y, operator)
            for index in range(3):
                assert relative(whole[index], model(y[index : index + 1], operator)[0]) < 1e-4

    @pytest.mark.parametrize("factor", [1e-8, 0.1, 100.0])
    def test_units_of_data_and_operator(self, tiny, factor):
        model, operator = tiny(image_channels=2), multi_coil()
        y = batch(operator).measurements
        with torch.no_grad():
            image = model(y, operator)
            assert relative(model(factor * y, operator) / factor, image) < 1e-4
            assert relative(model(factor * y, operator * factor), image) < 1e-4

    def test_filtered_back_projection_is_the_start_whatever_the_scale(self):
        operator = ParallelBeam2D((1, 15, 15), torch.linspace(0, 3, 9), detector_count=23)
        y = operator(draw(1, 1, 15, 15).abs())
        for scaled in (operator * 0.01, operator * 0.1 * 0.1):
            assert relative(scaled.initial(y * 0.01), operator.initial(y)) < 1e-5
        blur = Blur((1, 12, 10))
        z = draw(1, 1, 12, 10)
        assert relative((blur * 3.0 * 2.0).initial(z), 6 * blur.adjoint(z)) < 1e-6

    def test_one_operator_a_sample(self, tiny):
        masks = torch.rand(2, 16, 12, generator=torch.Generator().manual_seed(0)) < 0.5
        operator = CartesianMRI(masks)
        data = batch(operator)
        model = tiny(image_channels=2)
        with torch.no_grad():
            whole = model(data.measurements, operator)
            for index in range(2):
                alone = model(data.measurements[index : index + 1], CartesianMRI(masks[index]))
                assert relative(whole[index], alone[0]) < 1e-4
        assert gradient(model, data, "min").isfinite().all()

    def test_zero_start_is_data_consistency(self):
        """Zero-initialised: without training the result explains the data better than its start."""
        model = InvertibleDiffusionModel.from_config({**preset("small", image_channels=2), "zero_init": True})
        operator = multi_coil()
        data = batch(operator)
        with torch.no_grad():
            found = operator(model(data.measurements, operator)) - data.measurements
            start = operator(operator.initial(data.measurements)) - data.measurements
        assert found.norm() < start.norm()

    def test_final_consistency(self, tiny):
        operator = CartesianMRI(torch.rand(16, 12, generator=torch.Generator().manual_seed(0)) < 0.5)
        y = batch(operator).measurements
        with torch.no_grad():
            for final, bound in ((True, 1e-5), (False, float("inf"))):
                model = tiny(image_channels=2, data_consistency="projection", final_consistency=final)
                residual = relative(operator(model(y, operator)), y)
                assert residual < bound
        assert residual > 0.01  # without it the last mixing brings some of the state before back

    def test_places_of_injectors(self):
        counts = {}
        for places in ("all", "per_block", "none"):
            model = InvertibleDiffusionModel(steps=2, widths=[8, 16], heads=[0, 2], groups=4, injectors=places)
            counts[places] = model.count_operator_calls()
            batch_ = batch(Inpainting(torch.ones(1, 8, 8)))
            assert gradient(model, batch_, "min").isfinite().all()
        assert counts == {"all": 2 * (2 + 4 + 3 + 6 + 1), "per_block": 2 * (4 + 1), "none": 2}

    @pytest.mark.parametrize("name", ["block-cs", "multi-coil"])
    @pytest.mark.parametrize("shared", [True, False])
    def test_all_that_is_learned_takes_part(self, tiny, name, shared):
        """Whatever the operator, and with chains that are empty: DDP waits for every gradient."""
        build, channels = OPERATORS[name]
        model = tiny(image_channels=channels, warm_start="least-squares", injectors="none", heads=[0, 0], shared=shared)
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        model.memory = "none"
        model.training_loss(batch(build())).backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == names
        assert all(value.numel() for key, value in model.named_parameters() if key in names)

    def test_steps_with_weights_of_their_own(self, tiny):
        """As many operator calls, T U-Nets; to begin with it is the model that shares them."""
        shared = tiny(image_channels=2, steps=3)
        own = shared.unshared()
        assert own.count_operator_calls() == shared.count_operator_calls()
        assert len(own.unet) == 3
        operator = multi_coil()
        data = batch(operator)
        with torch.no_grad():
            assert torch.equal(own(data.measurements, operator), shared(data.measurements, operator))
        for memory in MEMORIES:
            assert relative(gradient(own, data, memory), gradient(own, data, "none")) < 2e-5, memory
        with torch.no_grad():
            own.unet[0].conv_in.weight.zero_()  # copies, not the same tensors
            assert not torch.equal(own.unet[0].conv_in.weight, own.unet[1].conv_in.weight)
        with pytest.raises(UsageError, match="weights of its own already"):
            own.unshared()

    @pytest.mark.parametrize(("factor", "channels"), [(0.1, 2), (3.0, 2), (100.0, 2)])
    @pytest.mark.parametrize("bounds", ["low", "start", "high"])
    def test_training_is_stable(self, tiny, factor, channels, bounds):
        """Raw k-space, ‖A‖ from 0.1 to 100, α and v at their bounds: where the published code explodes."""
        model = tiny(image_channels=channels, steps=3)
        operator = multi_coil() * factor
        data = batch(operator)
        if bounds != "start":
            sign = 1 if bounds == "high" else -1
            with torch.no_grad():
                model.alpha.theta.fill_(16.0 * sign)
                model.v.theta.fill_(16.0 * sign)
                for block in model.unet.blocks():
                    block.v.theta.fill_(16.0 * sign)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model.memory = "reversible"
        losses = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = model.training_loss(data)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            assert bool(torch.isfinite(norm))
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]

    def test_overfits_one_sample(self):
        torch.manual_seed(0)
        model = InvertibleDiffusionModel.from_preset("tiny", image_channels=2, steps=2)
        data = batch(multi_coil(), 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = model.training_loss(data)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]

    def test_deepcopy_after_training(self, tiny):
        model, data = tiny(steps=2), batch(Inpainting(torch.ones(1, 8, 6)))
        gradient(model, data, "min")
        twin = copy.deepcopy(model)
        with torch.no_grad():
            assert torch.equal(twin(*data[:2]), model(*data[:2]))

    @pytest.mark.parametrize(
        ("operator", "message"),
        [
            (Inpainting(torch.ones(2, 8, 8)), r"images of 3 real channels .* Inpainting has real images \(2, 8, 8\)"),
            (multi_coil(), r"CartesianMRI has complex images \(1, 20, 14\)"),
        ],
    )
    def test_other_images_are_refused(self, tiny, operator, message):
        with pytest.raises(OperatorError, match=message):
            tiny(image_channels=3)(batch(operator).measurements, operator)

    def test_bad_configurations(self):
        for arguments, message in (
            ({"steps": 0}, "steps must be at least 1"),
            ({"heads": [8]}, "2 widths need as many heads"),
            ({"alphas": [0.5]}, "3 steps need as many alphas"),
            ({"widths": [30, 64], "groups": 2, "heads": [0, 0]}, "30 channels do not make 2x2 pixels"),
            ({"widths": [32, 64], "heads": [7, 8]}, "7 heads do not share 32 channels"),
        ):
            with pytest.raises(ValueError, match=message):
                InvertibleDiffusionModel(**arguments)
        with pytest.raises(ValueError, match=r"no preset is called 'smal'.*did you mean 'small'"):
            InvertibleDiffusionModel.from_preset("smal")
        model = InvertibleDiffusionModel.from_preset("tiny")
        model.memory = "a lot"
        with pytest.raises(ValueError, match="memory must be one of none, checkpoint, min, reversible, auto"):
            model.training_loss(batch(Inpainting(torch.ones(1, 8, 8))))

    def test_injector_follows_its_equation(self):
        torch.manual_seed(0)
        layer = Injector(12, 1, 2)
        operator = Inpainting(torch.rand(1, 8, 6) < 0.5)
        h, start = draw(2, 12, 4, 3), draw(2, 1, 8, 6)
        z = nn.functional.pixel_shuffle(h, 2)
        z = torch.einsum("oi,bihw->bohw", layer.f2i.weight[..., 0, 0], z) + layer.f2i.bias.reshape(1, -1, 1, 1)
        seen = torch.cat([z, z * operator.mask, start], 1)
        back = torch.einsum("oi,bihw->bohw", layer.i2f.weight[..., 0, 0], seen) + layer.i2f.bias.reshape(1, -1, 1, 1)
        wanted = h + nn.functional.pixel_unshuffle(back, 2)
        assert torch.allclose(layer(h, operator, start), wanted, atol=1e-5)


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("memory", MEMORIES)
    @pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
    def test_gradients(self, tiny, memory, half):
        model = tiny(image_channels=2, steps=2).cuda()
        operator = multi_coil().cuda()
        target = batch(multi_coil()).target.cuda()
        data = TrainingBatch(operator(target), operator, target)
        wanted = gradient(model, data, "none")
        with torch.autocast("cuda", dtype=half or torch.bfloat16, enabled=half is not None):
            found = gradient(model, data, memory)
        assert relative(found, wanted) < (1e-4 if half is None else 0.1)
        on_cpu = gradient(model.cpu(), batch(multi_coil()), "none")
        assert relative(wanted.cpu(), on_cpu) < 1e-3

    def test_allocator_peaks_are_ordered(self, published_state):
        from medrecon.models.published import from_published

        model = from_published(published_state(steps=3)).cuda()
        operator = BlockCompressedSensing((1, 128, 128), 0.1).cuda()
        target = torch.rand(2, 1, 128, 128, device="cuda")
        data, peaks = TrainingBatch(operator(target), operator, target), []
        for memory in ("none", "checkpoint", "min"):
            gradient(model, data, memory)
            torch.cuda.reset_peak_memory_stats()
            gradient(model, data, memory)
            peaks.append(torch.cuda.max_memory_allocated())
        assert peaks == sorted(peaks, reverse=True)
        assert peaks[2] < 0.5 * peaks[0]


DISTRIBUTED = """
    import sys
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from medrecon.datasets import TrainingBatch
    from medrecon.models import InvertibleDiffusionModel, transformer
    from medrecon.operators import Inpainting

    rank, world, store, memory, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = InvertibleDiffusionModel.from_preset("tiny", steps=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.double().memory = memory

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return self.model.training_loss(batch)

    loss_of = Loss()
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        loss_of = DistributedDataParallel(loss_of, bucket_cap_mb=0.02)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    generator = torch.Generator().manual_seed(1)
    operator = Inpainting(torch.rand(1, 8, 8, generator=generator) < 0.5)
    gradients = []
    for _ in range(4):
        x = torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64)
        mine = x[rank * (4 // world) : (rank + 1) * (4 // world)]
        optimizer.zero_grad()
        loss_of(TrainingBatch(operator(mine), operator, mine)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        optimizer.step()
    torch.save({"gradients": gradients, "state": model.state_dict()}, out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["min", "checkpoint"])
def test_two_processes_equal_one(tmp_path, memory):
    """DistributedDataParallel without a static graph, over several iterations, every v included."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(DISTRIBUTED))

    def start(rank, world):
        arguments = [str(rank), str(world), str(tmp_path / "store"), memory, str(tmp_path / f"{world}-{rank}.pt")]
        return subprocess.Popen([sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True)

    processes = [start(0, 1), start(0, 2), start(1, 2)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for step in range(4):
        for name, wanted in one["gradients"][step].items():
            found = first["gradients"][step][name]
            assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max())), (step, name)
            assert torch.equal(found, second["gradients"][step][name]), (step, name)
    for name, value in one["state"].items():
        assert torch.allclose(first["state"][name], value, rtol=1e-10, atol=1e-12), name
