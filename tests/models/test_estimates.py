"""Where the estimates of training come from: made anew, or kept in a file."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medrecon.datasets import GroundTruth, SimulatedDataset, Source, TrainingBatch, collate
from medrecon.errors import InputError, UsageError
from medrecon.models.dddm import DirectlyDenoisingModel
from medrecon.models.dddm_loss import dddm_loss, mean_square
from medrecon.models.dddm_scheduler import DDDMScheduler
from medrecon.models.estimate_store import MemmapEstimateStore
from medrecon.models.estimates import RecomputedEstimate
from medrecon.operators import Inpainting
from medrecon.operators.recipes import load_recipe
from medrecon.simulation import random_ellipses

SHAPE = (1, 6, 5)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shrinking(estimate, x, times):
    """An f whose result tells estimate, noisy image and time apart."""
    return 0.5 * estimate + 0.25 * x + 1e-3 * times.reshape(-1, 1, 1, 1)


def images(count=32):
    return {Source(f"volume{index // 8}", index % 8): x for index, x in enumerate(draw(count, *SHAPE))}


def one_epoch(store, truth, order, f=shrinking):
    """Train for an epoch in which nothing is learned; return (e, x_t, t) of each source."""
    log, sources = {}, list(truth)

    def logged(estimate, x, times):
        log.update({source: (estimate[k : k + 1], x[k : k + 1], times[k : k + 1]) for k, source in enumerate(current)})
        return f(estimate, x, times)

    for places in order.split(5):
        current = [sources[place] for place in places.tolist()]
        x = torch.stack([truth[source] for source in current])
        start = torch.randn_like(x)
        dddm_loss(logged, x, start, DDDMScheduler(100), distance=mean_square, estimates=store, sources=current)
    return log


class TestStore:
    def test_what_is_stored(self, tmp_path):
        """f of the estimate, the noise and the time of each image, not the image; the same in a new process."""
        truth = images()
        store = MemmapEstimateStore(tmp_path / "e.npy", 40, SHAPE)
        order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
        one_epoch(store, truth, order)
        log = one_epoch(store, truth, order.flip(0))
        again = MemmapEstimateStore(tmp_path / "e.npy", 40, SHAPE)
        assert len(store) == len(again) == 32
        for source, (estimate, x, times) in log.items():
            wanted = shrinking(estimate, x, times)
            for kept in (store, again, pickle.loads(pickle.dumps(store)), copy.deepcopy(store)):
                found, known = kept.read([source])
                assert known.all()
                assert float((found - wanted).abs().max()) < 1e-3 * float(wanted.abs().max().clamp(min=1))
            assert float((found - truth[source]).abs().max()) > 0.1

    def test_estimates_of_the_epoch_before_come_back(self, tmp_path):
        truth = images()
        store = MemmapEstimateStore(tmp_path / "e.npy", 32, SHAPE, start_share=0.0)
        one_epoch(store, truth, torch.arange(32))
        before = {source: store.read([source])[0] for source in truth}
        log = one_epoch(store, truth, torch.randperm(32))
        for source, (estimate, _, _) in log.items():
            assert torch.equal(estimate, before[source])

    @pytest.mark.parametrize("share", [0.3, 1.0])
    def test_the_start_is_mixed_in(self, tmp_path, share):
        store = MemmapEstimateStore(tmp_path / "e.npy", 2000, (1, 1, 1), start_share=share)
        sources = [Source("v", index) for index in range(2000)]
        one = torch.ones(2000, 1, 1, 1)
        store.keep(one, sources)
        torch.manual_seed(0)
        found = store.contexts(shrinking, one, -one, torch.zeros(2000), DDDMScheduler(), sources)
        assert float((found == -1).float().mean()) == pytest.approx(share, abs=0.04)

    def test_workers_change_nothing(self, tmp_path):
        """Rows and their contents are the same whoever loads the data, over two epochs in shuffled order."""
        truth = [GroundTruth(x, Source("phantoms", k)) for k, x in enumerate(ellipses(12))]
        data = SimulatedDataset(truth, load_recipe("inpainting-50"), seed=1)
        found = []
        for workers in (0, 2):
            torch.manual_seed(0)
            model = DirectlyDenoisingModel.from_preset("tiny")
            model.estimates = store = MemmapEstimateStore(tmp_path / f"{workers}.npy", 12, (1, 16, 16))
            order = torch.Generator().manual_seed(5)
            loader = DataLoader(data, 4, shuffle=True, collate_fn=collate, num_workers=workers, generator=order)
            torch.manual_seed(1)
            for _ in range(2):
                for batch in loader:
                    model.training_loss(batch).backward()
            found.append(store.read([x.source for x in truth])[0])
        assert torch.equal(*found)
        assert bool(found[0].flatten(1).any(1).all())

    def test_two_processes_agree_on_rows(self, tmp_path):
        """Each gives out rows that the other then knows, as two objects on one file do."""
        one, other = (MemmapEstimateStore(tmp_path / "e.npy", 8, (1, 1, 1)) for _ in range(2))
        a, b, c = (Source("v", index) for index in range(3))
        one.keep(torch.full((1, 1, 1, 1), 1.0), [a])
        other.keep(torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1), [b, a])
        one.keep(torch.full((1, 1, 1, 1), 4.0), [c])
        for store in (one, other):
            values, known = store.read([a, b, c])
            assert known.all()
            assert values.flatten().tolist() == [3.0, 2.0, 4.0]

    def test_processes_at_the_same_time(self, tmp_path):
        """Each image is in the row of its name, whoever wrote it; the processes share the file, not the object."""
        store = MemmapEstimateStore(tmp_path / "e.npy", 90, (1, 2, 2))
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=write, args=(pickle.dumps(store), 30 * rank)) for rank in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0, 0]
        values, known = store.read([Source("v", index) for index in range(90)])
        assert known.all()
        assert torch.equal(values[:, 0, 0, 0], torch.arange(90.0))

    def test_images_of_a_sample_have_rows_of_their_own(self, tmp_path):
        store = MemmapEstimateStore(tmp_path / "e.npy", 8, (1, 1, 1))
        store.keep(torch.arange(4.0).reshape(4, 1, 1, 1), [Source("a"), Source("b")])
        assert store.read([Source("b")], images=2)[0].flatten().tolist() == [2.0, 3.0]
        assert len(store) == 4

    def test_messages(self, tmp_path):
        path = tmp_path / "e.npy"
        store = MemmapEstimateStore(path, 2, SHAPE)
        x = draw(3, *SHAPE)
        with pytest.raises(UsageError, match="3 images come with 0 sources; each sample of the batch must say"):
            store.keep(x, [])
        with pytest.raises(UsageError, match="a is in a batch more than once, or several samples have that name"):
            store.keep(x, [Source("a"), Source("a"), Source("b")])
        with pytest.raises(UsageError, match="has 2 rows, which do not hold 3 images; make a store with more rows"):
            store.keep(x, [Source("v", k) for k in range(3)])
        with pytest.raises(UsageError, match=r"holds images \(1, 6, 5\), got \(1, 6, 4\); .* without random patches"):
            store.keep(x[..., :4], [Source("v", k) for k in range(3)])
        with pytest.raises(InputError, match=r"holds \(2, 1, 6, 5\) float16, expected \(3, 1, 6, 5\) float16; remove"):
            MemmapEstimateStore(path, 3, SHAPE)
        np.save(path, np.zeros((2, *SHAPE)))
        with pytest.raises(InputError, match=r"holds .* float64, expected"):
            MemmapEstimateStore(path, 2, SHAPE)
        path.with_name("e.npy.rows").write_text("nothing\n")
        with pytest.raises(InputError, match=r"e\.npy\.rows: is damaged .* remove it and e\.npy"):
            store.read([Source("a")])
        path.write_bytes(b"nothing")
        with pytest.raises(InputError, match="is no store of estimates"):
            MemmapEstimateStore(path, 2, SHAPE)
        for wrong in ({"rows": 0}, {"shape": ()}, {"start_share": 1.5}):
            with pytest.raises(UsageError, match="MemmapEstimateStore: "):
                MemmapEstimateStore(tmp_path / "other.npy", **{"rows": 1, "shape": SHAPE, **wrong})


def ellipses(count):
    return random_ellipses(count, (16, 16), torch.Generator().manual_seed(1))


def write(pickled, first):
    store = pickle.loads(pickled)
    for index in range(first, first + 30):
        store.keep(torch.full((1, 1, 2, 2), float(index)), [Source("v", index)])


class TestRecomputed:
    def test_from_at_least_as_much_noise(self):
        """Half are the start, half f of the start and of noise that is stronger, or as strong, and fresh."""
        scheduler, calls = DDDMScheduler(100), []

        def f(estimate, x, times):
            calls.append((estimate, x, times))
            return estimate + 1

        x, start = draw(2000, 1, 1, 1), draw(2000, 1, 1, 1, seed=2)
        times = torch.arange(2000) % 100
        torch.manual_seed(0)
        found = RecomputedEstimate().contexts(f, x, start, times, scheduler, ())
        ((estimate, noisy, earlier),) = calls
        assert torch.equal(estimate, start)
        assert bool((earlier >= times).all())
        assert float((earlier > times).float().mean()) == pytest.approx(0.495, abs=0.04)
        signal, sigma = (table.float()[earlier] for table in (scheduler.signals, scheduler.sigmas))
        noise = (noisy.flatten() - signal * x.flatten()) / sigma
        assert float(noise.std()) == pytest.approx(1, abs=0.05)
        assert float((found == start).float().mean()) == pytest.approx(0.5, abs=0.04)
        assert torch.equal(found[found != start], (start + 1)[found != start])

    def test_no_gradient_and_no_call(self):
        weight = torch.ones((), requires_grad=True)
        x = draw(4, *SHAPE)
        arguments = (x, x, torch.zeros(4, dtype=torch.int64), DDDMScheduler(), ())
        assert not RecomputedEstimate().contexts(lambda e, *_: weight * e, *arguments).requires_grad
        assert RecomputedEstimate(1.0).contexts(None, *arguments) is x
        with pytest.raises(UsageError, match="start_share lies between 0 and 1, got 2"):
            RecomputedEstimate(2)


def test_store_of_a_model_is_not_saved(tmp_path):
    """Nor is it needed to reconstruct; training asks for sources, and a copy of the model shares the file."""
    model = DirectlyDenoisingModel.from_preset("tiny")
    model.estimates = MemmapEstimateStore(tmp_path / "e.npy", 4, (1, 9, 7))
    model.save(tmp_path / "model")
    operator = Inpainting(torch.rand(1, 9, 7) < 0.5)
    x = torch.rand(2, 1, 9, 7)
    batch = TrainingBatch(operator(x), operator, x, (Source("a", 0), Source("a", 1)))
    model.training_loss(batch)
    twin = copy.deepcopy(model)
    assert len(twin.estimates) == 2
    assert isinstance(DirectlyDenoisingModel.load(tmp_path / "model").estimates, RecomputedEstimate)
    with pytest.raises(UsageError, match="2 images come with 0 sources"):
        model.training_loss(batch._replace(sources=()))
