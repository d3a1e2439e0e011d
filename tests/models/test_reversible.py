"""The reversible engine against plain autograd, in all the ways in which autograd is used."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medrecon.models.rebinding import Call, rebound
from medrecon.models.replay import Inputs, recomputed
from medrecon.models.reversible import rebuildable, reversible_chain

KEEPS = ["states", "states-together", "ends"]


class Body(nn.Module):
    """A small body with a conditioning tensor and, where asked for, dropout."""

    def __init__(self, channels=4, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, skip):
        return self.dropout(F.silu(self.norm(self.conv(x)))) * (1 + skip)


class Chain(nn.Module):
    """Bodies, the first of them used twice, with a v for each link."""

    def __init__(self, keep, dropout=0.0):
        super().__init__()
        first, second = Body(dropout=dropout), Body(dropout=dropout)
        self.bodies = nn.ModuleList([first, second, first])
        self.v = nn.Parameter(torch.tensor([0.5, 0.45, 0.6]))
        self.keep = keep

    def forward(self, x, skip):
        calls = [Call(body, (skip,)) for body in self.bodies]
        return torch.cat(reversible_chain(calls, x, 0.7 * x, self.v, keep=self.keep))


def make(keep, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return Chain(keep, **options).to(dtype)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x, skip = (torch.randn(2, 4, 6, 5, generator=generator, dtype=dtype) for _ in range(2))
    return x.requires_grad_(), skip.requires_grad_()


def gradients(model, x, skip, loss=lambda y: y.square().mean()):
    return torch.autograd.grad(loss(model(x, skip)), [x, skip, *model.parameters()])


def error(found, wanted):
    found, wanted = (torch.cat([part.detach().flatten().double() for part in parts]) for parts in (found, wanted))
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_autograd(keep, dtype, bound):
    wanted = gradients(make("graph", dtype), *data(dtype))
    assert error(gradients(make(keep, dtype), *data(dtype)), wanted) < bound


@pytest.mark.parametrize("keep", KEEPS)
def test_gradcheck(keep):
    model = make(keep)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x, skip, *_):
        return model(x, skip)

    assert torch.autograd.gradcheck(run, (x, skip, *model.parameters()))


@pytest.mark.parametrize("keep", KEEPS)
def test_nested(keep):
    """A chain whose body is a chain, as the steps of the model are."""

    def outer(keep_outer, keep_inner):
        model = make(keep_inner)
        x, skip = data()
        v = torch.tensor([0.5, 0.6], dtype=torch.float64, requires_grad=True)
        halves = (lambda x, chain, skip: chain(x, skip).chunk(2)[0],) * 2
        calls = [Call(half, (model, skip)) for half in halves]
        y = torch.cat(reversible_chain(calls, x, x * 0.5, v, keep=keep_outer))
        return torch.autograd.grad(y.square().mean(), [x, skip, v, *model.parameters()])

    assert error(outer(keep, keep), outer("graph", "graph")) < 1e-12


@pytest.mark.parametrize("keep", KEEPS)
class TestAutogradUse:
    def test_hooks_are_called_once_with_the_whole_gradient(self, keep):
        model, calls = make(keep), {}
        for name, parameter in model.named_parameters():
            parameter.register_hook(lambda g, name=name: calls.setdefault(name, []).append(g.clone()))
        model(*data()).square().mean().backward()
        assert {name: len(seen) for name, seen in calls.items()} == dict.fromkeys(dict(model.named_parameters()), 1)
        assert all(torch.equal(calls[name][0], p.grad) for name, p in model.named_parameters())

    def test_hook_that_changes_the_gradient_acts_once(self, keep):
        model, plain = make(keep), make("graph")
        model.bodies[0].conv.weight.register_hook(lambda g: 2 * g)
        for each in (model, plain):
            each(*data()).square().mean().backward()
        assert error([model.bodies[0].conv.weight.grad], [2 * plain.bodies[0].conv.weight.grad]) < 1e-12

    def test_accumulation(self, keep):
        model = make(keep)
        for _ in range(2):
            model(*data()).square().mean().backward()
        once = gradients(make("graph"), *data())[2:]
        assert error([p.grad for p in model.parameters()], [2 * g for g in once]) < 1e-12

    def test_two_forwards_before_one_backward(self, keep):
        x, skip = data()

        def total(model):
            return model(x, skip).square().mean() + model(2 * x, skip - 1).mean()

        found, wanted = make(keep), make("graph")
        a = torch.autograd.grad(total(found), [x, skip, *found.parameters()])
        b = torch.autograd.grad(total(wanted), [x, skip, *wanted.parameters()])
        assert error(a, b) < 1e-12

    def test_inference_between_forward_and_backward(self, keep):
        model = make(keep)
        x, skip = data()
        y = model(x, skip)
        with torch.no_grad():
            model(3 * x, skip)
        model(x.detach() + 1, skip.detach())
        found = torch.autograd.grad(y.square().mean(), [x, skip, *model.parameters()])
        assert error(found, gradients(make("graph"), *data())) < 1e-12

    def test_backward_twice(self, keep):
        model = make(keep)
        x, skip = data()
        y = model(x, skip).square().mean()
        first = torch.autograd.grad(y, [x, *model.parameters()], retain_graph=True)
        assert error(torch.autograd.grad(y, [x, *model.parameters()]), first) == 0

    @pytest.mark.parametrize("frozen", ["v", "bodies.0", "bodies", "x"])
    def test_some_of_it_frozen(self, keep, frozen):
        def run(model):
            x, skip = data()
            x.requires_grad_(frozen != "x")
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.startswith(frozen))
            wanted = [t for t in (x, skip, *model.parameters()) if t.requires_grad]
            return torch.autograd.grad(model(x, skip).square().mean(), wanted)

        assert error(run(make(keep)), run(make("graph"))) < 1e-12

    def test_deepcopy_after_a_step(self, keep):
        model = make(keep)
        model(*data()).square().mean().backward()
        twin = copy.deepcopy(model)
        assert error(gradients(twin, *data()), gradients(model, *data())) == 0

    def test_dropout_sees_the_same_numbers(self, keep):
        def run(keep):
            model = make(keep, dropout=0.4)
            torch.manual_seed(7)
            found = gradients(model, *data())
            return found, torch.rand(3)

        (found, after), (wanted, after_plain) = run(keep), run("graph")
        assert error(found, wanted) < 1e-12
        assert torch.equal(after, after_plain)  # the recomputation leaves no trace in the generator

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
    def test_autocast_is_put_back(self, keep, half):
        def run(keep):
            model = make(keep, torch.float32)
            x, skip = data(torch.float32)
            with torch.autocast("cpu", dtype=half):
                loss = model(x, skip).float().square().mean()
            scaled = 8 * loss  # as a gradient scaler does, outside of autocast
            found = torch.autograd.grad(scaled, [x, skip, *model.parameters()])
            assert all(g.dtype == torch.float32 for g in found)
            return [g / 8 for g in found]

        assert error(run(keep), run("graph")) < 2e-2
        assert error(run(keep), gradients(make("graph", torch.float32), *data(torch.float32))) > 1e-4

    def test_threads(self, keep):
        model, results = make(keep), {}

        def work(n):
            for _ in range(5):
                x, skip = data()
                results[n] = gradients(model, x * n, skip, torch.sum)

        def gradients(model, x, skip, loss):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(loss(model(x, skip)), [x, skip, *model.parameters()])

        wanted = {n: gradients(model, data()[0] * n, data()[1], torch.sum) for n in range(1, 5)}
        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(error(results[n], wanted[n]) for n in wanted) < 1e-12

    @pytest.mark.parametrize("how", ["wrapped", "in place"])
    def test_compiled_bodies(self, keep, how):
        import torch._dynamo.testing

        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        model = make(keep)
        for n, body in enumerate(list(model.bodies)[:2]):
            if how == "wrapped":
                model.bodies[n] = torch.compile(body, backend=counter)
            else:
                body.compile(backend=counter)
        model.bodies[2] = model.bodies[0]
        wanted = gradients(make("graph"), *data())
        for _ in range(3):
            assert error(gradients(model, *data()), wanted) < 1e-12
        assert 1 <= counter.frame_count <= 6  # code is found again, not compiled for every copy

    def test_second_derivative_is_refused(self, keep):
        model = make(keep)
        x, skip = data()
        with pytest.raises(RuntimeError, match=r"second derivatives .* memory=\"none\""):
            torch.autograd.grad(model(x, skip).sum(), x, create_graph=True)


def test_no_links():
    x = torch.ones(1, requires_grad=True)
    for keep in ("graph", *KEEPS):
        y = reversible_chain([], x, 2 * x, torch.ones(0), keep=keep)
        assert [float(part.detach()) for part in y] == [1, 2]


def test_nothing_is_kept_without_gradients():
    model = make("states-together")
    with torch.no_grad():
        y = model(*data())
    assert y.grad_fn is None
    assert error([y], [make("graph")(*data())]) < 1e-12


def test_running_statistics_are_refused():
    layer = nn.Sequential(nn.BatchNorm2d(4))
    with pytest.raises(TypeError, match=r"BatchNorm2d updates its running statistics .* use GroupNorm"):
        Inputs([Call(layer)])
    Inputs([Call(layer.eval())])


def test_recomputed_equals_autograd():
    body = Body().double()
    x, skip = data()
    wanted = torch.autograd.grad(body(x, skip).square().sum(), [x, skip, *body.parameters()])
    found = torch.autograd.grad(recomputed(Call(body, (skip,)), x).square().sum(), [x, skip, *body.parameters()])
    assert error(found, wanted) < 1e-12
    with torch.no_grad():
        assert recomputed(Call(body, (skip,)), x).grad_fn is None


def test_rebound_leaves_the_module_alone():
    body = Body()
    weight = body.conv.weight
    other = torch.zeros_like(weight)
    copied = rebound(body, {id(weight): other}, {})
    assert copied.conv.weight is other
    assert body.conv.weight is weight
    assert copied.norm.weight is body.norm.weight
    shared = nn.ModuleList([body, body])
    twice = rebound(shared, {}, {})
    assert twice[0] is twice[1]


def test_rebuildable():
    assert rebuildable(torch.full((11,), 0.4))
    assert not rebuildable(torch.full((11,), 0.39))
    assert rebuildable(torch.full((3,), 0.1))
    assert not rebuildable(torch.tensor([0.0]))
