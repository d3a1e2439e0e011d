"""Volume metrics: fastMRI's numbers, in one process and in several."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from monai.data import MetaTensor

from medrecon.errors import InputError, UsageError
from medrecon.metrics import evaluate_volume
from medrecon.pipelines import VolumeMetric


def volumes(count):
    generator = torch.Generator().manual_seed(0)
    truths = [torch.rand(2 + number % 2, 12, 10, generator=generator) for number in range(count)]
    return truths, [truth + 0.1 * torch.randn(truth.shape, generator=generator) for truth in truths]


def reference(name, count=5):
    return [evaluate_volume(t.numpy(), i.numpy())[name] for t, i in zip(*volumes(count), strict=True)]


@pytest.mark.parametrize("name", ["ssim", "psnr", "nmse"])
def test_lists_of_volumes(name):
    truths, images = volumes(5)
    metric = VolumeMetric(name)
    metric(images[:2], truths[:2])
    values = metric(y_pred=images[2:], y=truths[2:])
    assert values.flatten().tolist() == reference(name)[2:]
    assert metric.aggregate().item() == pytest.approx(np.mean(reference(name)), rel=1e-12)
    assert metric.aggregate("none").flatten().tolist() == reference(name)
    assert metric.aggregate("median").item() == pytest.approx(np.median(reference(name)), rel=1e-12)
    assert metric.get_buffer().shape == (5, 1)
    assert len(metric) == 5
    metric.reset()
    metric(images[:2], truths[:2])
    assert metric.aggregate().item() == pytest.approx(np.mean(reference(name)[:2]))
    assert metric.aggregate("median").item() == pytest.approx(np.median(reference(name)[:2]))


def test_batches_and_monai_axes():
    truths, images = (torch.stack(group[::2]) for group in volumes(5))
    expected = reference("ssim")[::2]
    assert VolumeMetric()(images, truths).flatten().tolist() == expected
    turned = [MetaTensor(group.permute(0, 3, 2, 1)[:, None]) for group in (images, truths)]
    assert VolumeMetric()(*turned).flatten().tolist() == expected
    assert VolumeMetric()(list(turned[0]), list(turned[1])).flatten().tolist() == expected
    turn = torch.polar(images, torch.ones(()))
    assert VolumeMetric()(turn, truths).flatten().tolist() == pytest.approx(
        VolumeMetric()(images.abs(), truths).flatten().tolist(), rel=1e-4
    )


def test_a_volume_is_more_than_its_slices():
    truths, images = volumes(1)
    whole = VolumeMetric("psnr")(images, truths).item()
    slices = VolumeMetric("psnr")(images[0][:, None], truths[0][:, None])
    assert slices.shape == (2, 1)
    assert whole != pytest.approx(slices.mean().item(), rel=1e-6)


def test_direction():
    assert VolumeMetric("ssim").greater_is_better
    assert VolumeMetric("psnr").metric_cmp_fn(31.0, 30.0)
    assert not VolumeMetric("nmse").greater_is_better
    assert VolumeMetric("nmse").metric_cmp_fn(0.1, 0.2)
    assert not VolumeMetric("nmse").metric_cmp_fn(0.2, 0.2)


def test_bad_calls_are_named():
    truths, images = volumes(2)
    with pytest.raises(UsageError, match="metric_name"):
        VolumeMetric("mse")
    with pytest.raises(UsageError, match="reduction"):
        VolumeMetric(reduction="sum")
    with pytest.raises(UsageError, match="no volume has been given"):
        VolumeMetric().aggregate()
    with pytest.raises(UsageError, match="2 volumes, but 1"):
        VolumeMetric()(images, truths[:1])
    with pytest.raises(UsageError, match="true volumes"):
        VolumeMetric()(images[0][None])
    with pytest.raises(UsageError, match="expected volumes"):
        VolumeMetric()(images[0], truths[0])
    with pytest.raises(InputError, match="do not match"):
        VolumeMetric()(images, truths[::-1])


def _rank(rank, store, counts, queue):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    truths, images = volumes(5)
    results = []
    for epoch_counts in counts:
        start = sum(epoch_counts[:rank])
        mine = range(start, start + epoch_counts[rank])
        metric = VolumeMetric("ssim")
        metric.reset()
        for index in mine:
            metric(images[index][None], truths[index][None])
        results.append((metric.aggregate().item(), metric.get_buffer().flatten().tolist(), len(metric)))
        if rank == 0:  # more on one rank only, after both were in step
            metric(images[:1], truths[:1])
        results.append((metric.aggregate().item(), None, None))
    queue.put((rank, results))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    """3 + 2, 5 + 0 and 0 + 5 volumes give what one process gives, on both ranks."""
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    counts = [(3, 2), (5, 0), (0, 5)]
    processes = [context.Process(target=_rank, args=(rank, str(tmp_path / "store"), counts, queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        results = dict(queue.get(timeout=120) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
    assert results[0] == results[1]
    expected = reference("ssim")
    for value, values, count in results[0][::2]:
        assert value == pytest.approx(np.mean(expected), rel=1e-12)
        assert values == expected
        assert count == 5
    for value, _, _ in results[0][1::2]:
        assert value == pytest.approx(np.mean([*expected, expected[0]]), rel=1e-12)
