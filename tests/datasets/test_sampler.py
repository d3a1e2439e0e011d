"""The order of training: what each process reads, in which batches, and that it can be taken up anywhere."""

import itertools

import pytest

from medrecon.datasets import VolumeBatchSampler
from medrecon.errors import UsageError


class Slices:
    """Volumes by their numbers of slices; a shape is a number."""

    def __init__(self, counts, shapes=None):
        self.items = [
            (f"volume {volume}", (shapes or [0] * len(counts))[volume])
            for volume, count in enumerate(counts)
            for _ in range(count)
        ]

    def __len__(self):
        return len(self.items)

    def volume_of(self, index):
        return self.items[index][0]

    def shape_of(self, index):
        return (self.items[index][1],)


def passes(data, size, world, epoch=0, **options):
    """Return the batches of every process in an epoch."""
    found = []
    for rank in range(world):
        sampler = VolumeBatchSampler(data, size, rank=rank, world=world, **options)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        found.append(batches)
    return found


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


MIXED = Slices([5, 3, 8, 1, 6, 2, 7], [0, 1, 0, 2, 1, 0, 0])
FEW = Slices([4, 3])


class TestValidation:
    @pytest.mark.parametrize("data", [MIXED, FEW, Slices([1]), Slices([3, 3, 3])])
    @pytest.mark.parametrize("world", [1, 2, 3, 4])
    @pytest.mark.parametrize("size", [1, 3])
    def test_every_slice_exactly_once(self, data, world, size):
        ranks = passes(data, size, world, training=False)
        assert sorted(flat(flat(ranks))) == list(range(len(data)))
        for batches in ranks:
            assert flat(batches) == sorted(flat(batches)) or len({data.shape_of(i) for i in flat(batches)}) > 1
        owners = [{data.volume_of(index) for index in flat(batches)} for batches in ranks]
        assert sum(map(len, owners)) == len(set().union(*owners))  # whole volumes

    def test_processes_without_any(self):
        ranks = passes(FEW, 2, 4, training=False)
        assert sorted(map(len, ranks)) == [0, 0, 2, 2]

    def test_the_order_never_changes(self):
        assert passes(MIXED, 2, 2, 0, training=False) == passes(MIXED, 2, 2, 7, training=False, seed=5)

    def test_loads_are_even(self):
        loads = [len(flat(batches)) for batches in passes(Slices([9, 8, 2, 2, 2, 1]), 1, 2, training=False)]
        assert loads == [12, 12]


class TestTraining:
    @pytest.mark.parametrize("world", [1, 2, 3, 4])
    @pytest.mark.parametrize("size", [1, 2, 5])
    @pytest.mark.parametrize("data", [MIXED, Slices([1, 1, 1, 20])])
    def test_no_volume_in_two_processes_and_as_many_batches_everywhere(self, data, world, size):
        for epoch in range(5):
            ranks = passes(data, size, world, epoch, training=True)
            assert {len(batches) for batches in ranks} == {-(-len(data) // (size * world))}
            owners = [{data.volume_of(index) for index in flat(batches)} for batches in ranks]
            assert sum(map(len, owners)) == len(set().union(*owners))
            assert all(owners)

    @pytest.mark.parametrize("training", [True, False])
    def test_shapes_are_never_mixed(self, training):
        for world, size, epoch in itertools.product((1, 2, 3), (2, 4), range(5)):
            for batch in flat(passes(MIXED, size, world, epoch, training=training)):
                assert 0 < len(batch) <= size
                assert len(set(batch)) == len(batch)
                assert len({MIXED.shape_of(index) for index in batch}) == 1

    def test_one_process_with_one_shape_reads_everything_once(self):
        data = Slices([5, 4, 3])
        for size in (1, 4, 5):
            (batches,) = passes(data, size, 1, training=True)
            assert sorted(flat(batches)) == list(range(12))

    def test_the_order_differs_and_repeats(self):
        orders = [
            passes(MIXED, 2, 2, epoch, training=True, seed=seed) for seed, epoch in itertools.product((0, 1), (0, 1))
        ]
        assert all(one != other for one, other in itertools.combinations(orders, 2))
        assert passes(MIXED, 2, 2, 1, training=True, seed=1) == orders[-1]
        sampler = VolumeBatchSampler(MIXED, 2, training=True)
        first = list(sampler)
        sampler.set_epoch(1)
        assert list(sampler) != first
        sampler.set_epoch(0)
        assert list(sampler) == first

    def test_batches_mix_volumes(self):
        (batches,) = passes(Slices([50, 50]), 10, 1, training=True)
        assert any(len({index // 50 for index in batch}) == 2 for batch in batches)

    @pytest.mark.parametrize("world", [1, 2, 3])
    def test_nothing_is_left_out_for_ever(self, world):
        """Neither slices of overloaded processes nor shapes too rare to fill a batch."""
        data = Slices([16, 8, 3, 2, 3], [0, 0, 1, 2, 0])
        seen = set()
        for epoch in range(60):
            seen |= set(flat(flat(passes(data, 4, world, epoch, training=True))))
        assert seen == set(range(len(data)))

    @pytest.mark.parametrize(("counts", "world"), [([4, 3], 3), ([9], 4), ([1, 1], 3), ([1], 4), ([2, 3], 8)])
    def test_fewer_volumes_than_processes(self, counts, world):
        """Slices are dealt out instead; with fewer slices than processes some are read by several."""
        data = Slices(counts)
        for epoch in range(4):
            ranks = passes(data, 2, world, epoch, training=True)
            assert {len(batches) for batches in ranks} == {-(-len(data) // (2 * world))}
            assert all(flat(batches) for batches in ranks)
            if len(data) >= world:
                together = flat([sorted(set(flat(batches))) for batches in ranks])
                assert len(together) == len(set(together))


class TestResume:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("world", [1, 3])
    def test_skip_goes_on_exactly(self, training, world):
        for rank, done in itertools.product(range(world), range(4)):
            options = {"training": training, "rank": rank, "world": world, "seed": 2}
            whole, resumed = (VolumeBatchSampler(MIXED, 2, **options) for _ in range(2))
            for sampler in (whole, resumed):
                sampler.set_epoch(3)
            resumed.skip(done)
            every = list(whole)
            assert list(resumed) == every[done:]
            assert list(resumed) == every  # once only
            assert len(resumed) == len(every)

    def test_skip_everything(self):
        sampler = VolumeBatchSampler(FEW, 2, training=True)
        sampler.skip(len(sampler))
        assert list(sampler) == []


@pytest.mark.parametrize(("size", "rank", "world"), [(0, 0, 1), (1, 1, 1), (1, -1, 2), (1, 0, 0)])
def test_mistakes(size, rank, world):
    message = f"expected batch_size >= 1 and 0 <= rank < world, got {size}, {rank} of {world}"
    with pytest.raises(UsageError, match=message):
        VolumeBatchSampler(FEW, size, training=True, rank=rank, world=world)
