"""Memory is counted exactly, stays below its bounds, and "auto" chooses by it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from medrecon.datasets import TrainingBatch
from medrecon.errors import OutOfMemoryError
from medrecon.models import InvertibleDiffusionModel
from medrecon.models.memory import Identity, LivePeak, StepCost, choose_memory, step_cost
from medrecon.operators import BlockCompressedSensing, Inpainting

MB = 2**20


def test_live_peak_counts_storages_once():
    own = torch.zeros(100)
    with LivePeak([own]) as memory:
        a = torch.zeros(250)
        view = a[10:20]
        _ = own[3:]
        assert memory.live == 1000
        b = a + 1
        del a
        assert memory.live == 2000  # the view keeps it
        del view, b
    assert (memory.live, memory.peak) == (0, 2000)


def test_identity():
    x = torch.rand(2, 1, 5, 4)
    assert all(torch.equal(y, x) for y in (Identity((1, 5, 4))(x), Identity((1, 5, 4)).pinv(x)))


def step_peak(preset, steps, memory, size):
    """Return the peak of a training step in MB, new gradients included, counted without computing it."""
    with FakeTensorMode():
        model = InvertibleDiffusionModel.from_preset(preset, steps=steps)
        y = torch.empty(1, 1, size, size)
        with LivePeak(model.parameters()) as counted:
            model.sample(y, Identity((1, size, size)), y.clone(), memory).abs().mean().backward()
    return counted.peak / MB


@pytest.mark.slow
def test_published_size_stays_below_its_bounds():
    """MB = 2^20 bytes, fp32, 256², batch 1, T = 3; the published two-level code needs 2756."""
    assert step_peak("sd15", 3, "reversible", 256) < 1450
    assert step_peak("sd15", 3, "min", 256) < 1620
    assert step_peak("sd15", 3, "checkpoint", 256) < 2750


@pytest.mark.parametrize("memory", ["min", "reversible"])
def test_flat_in_the_number_of_steps(memory):
    few, many = (step_peak("tiny", steps, memory, 64) for steps in (2, 12))
    assert many < 1.05 * few  # the gradients of the injectors of ten more steps


def test_cost_of_a_step_is_what_a_step_costs():
    """The estimate, from T = 1 on fake tensors, against a real step at T = 3."""
    model = InvertibleDiffusionModel.from_preset("tiny", steps=3)
    gradients = sum(p.numel() * 4 for p in model.parameters())
    x = torch.rand(2, 1, 32, 24)
    for memory in ("none", "checkpoint", "min"):
        model.zero_grad()
        with LivePeak(model.parameters()) as counted:
            model.sample(x, Identity((1, 32, 24)), x.clone(), memory).abs().mean().backward()
        estimate = step_cost(model, (2, 1, 32, 24), memory).at(3, gradients)
        assert 0.95 * counted.peak < estimate < 1.4 * counted.peak, memory


def test_measuring_draws_no_random_numbers():
    model = InvertibleDiffusionModel.from_preset("tiny", steps=2)
    before = torch.get_rng_state()
    for memory in ("none", "min"):
        step_cost(model, (1, 1, 40, 24), memory)
    assert torch.equal(torch.get_rng_state(), before)


def test_cost_grows_with_the_steps():
    assert StepCost(10, 100).at(1, 7) == 100
    assert StepCost(10, 100).at(3, 7) == 127


def test_auto_chooses_by_the_budget():
    model = InvertibleDiffusionModel.from_preset("tiny", steps=3)
    gradients = sum(p.numel() * 4 for p in model.parameters())
    x = torch.rand(2, 1, 32, 24)
    needs = {m: step_cost(model, tuple(x.shape), m).at(3, gradients) for m in ("none", "checkpoint", "min")}
    assert needs["none"] > needs["checkpoint"] > needs["min"]
    for memory, need in needs.items():
        assert choose_memory(model, x, need) == memory
    with pytest.raises(OutOfMemoryError, match=r"a training step on images \(2, 1, 32, 24\) needs .* the budget is"):
        choose_memory(model, x, needs["min"] - 1)
    assert choose_memory(model, x) == "none"  # there is room for this


def test_auto_is_the_default_and_a_number_is_a_budget(monkeypatch):
    from medrecon.models import idm

    chosen = []
    monkeypatch.setattr(idm, "choose_memory", lambda model, initial, budget: chosen.append(budget) or "min")
    model = InvertibleDiffusionModel.from_preset("tiny")
    operator = Inpainting(torch.ones(1, 8, 8))
    batch = TrainingBatch(torch.rand(1, 1, 8, 8), operator, torch.rand(1, 1, 8, 8))
    model.training_loss(batch).backward()
    model.memory = 12345
    model.training_loss(batch)
    with torch.no_grad():
        model(batch.measurements, operator)  # inference keeps nothing and asks nothing
    assert chosen == [None, 12345]


def test_autocast_is_part_of_the_measurement():
    model = InvertibleDiffusionModel.from_preset("tiny", steps=1)
    plain = step_cost(model, (1, 1, 64, 64), "none")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert step_cost(model, (1, 1, 64, 64), "none") != plain


@pytest.mark.parametrize("memory", ["none", "checkpoint", "min", "reversible"])
def test_whole_step_without_data(memory):
    """A user's own measurement: the model on fake tensors, with a real operator."""
    operator = BlockCompressedSensing((1, 24, 16), 0.5, block_size=8)
    y = operator(torch.rand(1, 1, 24, 16))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = InvertibleDiffusionModel.from_preset("tiny", steps=2)
        model.memory = memory
        model.training_loss(TrainingBatch(y, operator, torch.rand(1, 1, 24, 16))).backward()
    assert model.merge.grad.shape == (1,)


def test_matrices_made_without_data_are_not_remembered():
    with FakeTensorMode():
        BlockCompressedSensing((1, 8, 8), 0.5, block_size=8, seed=99)
    assert BlockCompressedSensing((1, 8, 8), 0.5, block_size=8, seed=99).phi.isfinite().all()
