"""Inference in parts of a batch equals inference at once."""

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine

from medrecon.errors import UsageError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, LinearOperator, batch_operators
from medrecon.pipelines import ReconstructionInferer, VolumeMetric


class Adjoint(torch.nn.Module):
    """Notes the sizes of the batches that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, y, operator):
        self.seen.append((len(y), operator.batch_size))
        return operator.adjoint(y)


class Opaque(LinearOperator):
    """One weight a sample, and no config()."""

    def __init__(self, weights):
        super().__init__((1, 3, 4), (1, 3, 4))
        self.register_buffer("weights", weights.reshape(-1, 1, 1, 1))

    def _forward(self, x):
        return self.weights * x

    _adjoint = _forward


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mri(count, sets=1):
    masks = (random(count, 7, 9).abs() > 0.5).float()
    maps = random(count, sets, 3, 7, 9, dtype=torch.complex64, seed=1)
    return CartesianMRI(masks, maps)


def operators():
    yield mri(5)
    yield mri(5, sets=2) * random(5).abs()
    yield mri(1)
    yield batch_operators([BlockCompressedSensing((1, 6, 7), 0.5, block_size=4, permutation_seed=n) for n in range(5)])
    yield Opaque(torch.arange(5.0))


@pytest.mark.parametrize(
    "operator", list(operators()), ids=lambda operator: f"{type(operator).__name__}{operator.batch_size}"
)
@pytest.mark.parametrize("size", [None, 1, 2, 5, 8])
def test_parts_equal_the_whole(operator, size):
    y = random(5, *operator.data_shape, dtype=operator.data_dtype, seed=2)
    network = Adjoint()
    images = ReconstructionInferer(batch_size=size)(y, network, operator)
    torch.testing.assert_close(images, operator.adjoint(y), rtol=1e-5, atol=1e-5)
    whole = size in (None, 5, 8) or isinstance(operator, Opaque)
    assert [seen for seen, _ in network.seen] == ([5] if whole else [1] * 5 if size == 1 else [2, 2, 1])
    if not whole:
        assert all(own in (1, seen) for seen, own in network.seen)


def test_magnitude_and_crop():
    operator = mri(4, sets=2)
    y = random(4, *operator.data_shape, dtype=torch.complex64)
    complex_images = operator.adjoint(y)
    images = ReconstructionInferer(batch_size=3, magnitude=True, crop=(5, 4))(y, Adjoint(), operator=operator)
    expected = complex_images.abs().square().sum(1, keepdim=True).sqrt()[..., 1:6, 2:6]
    torch.testing.assert_close(images, expected)
    real = Inpainting(torch.ones(1, 1, 3, 4))
    x = random(2, 1, 3, 4)
    assert torch.equal(ReconstructionInferer(magnitude=True)(x, Adjoint(), real), x)


def test_single_slices_of_the_readers():
    operator = mri(2)
    y = random(2, *operator.data_shape, dtype=torch.complex64)
    images = ReconstructionInferer()(MetaTensor(y.unsqueeze(2)), Adjoint(), operator)
    assert type(images) is torch.Tensor
    torch.testing.assert_close(images, operator.adjoint(y))


def test_gradients_pass():
    weight = torch.nn.Parameter(torch.ones(()))
    operator = mri(3)
    y = random(3, *operator.data_shape, dtype=torch.complex64)
    ReconstructionInferer(batch_size=2)(y, lambda y, a: weight * a.adjoint(y), operator).abs().sum().backward()
    assert weight.grad > 0


def test_bad_calls_are_named():
    operator = mri(2)
    with pytest.raises(UsageError, match="expected a LinearOperator beside the measurements, got NoneType"):
        ReconstructionInferer()(torch.ones(2, 3, 7, 9), Adjoint())
    with pytest.raises(UsageError, match=r"maps to, \(B, 3, 7, 9\)"):
        ReconstructionInferer()(torch.ones(2, 3, 4, 7, 9), Adjoint(), operator)
    with pytest.raises(UsageError, match="batch_size"):
        ReconstructionInferer(batch_size=0)
    with pytest.raises(UsageError, match="crop"):
        ReconstructionInferer(crop=(0, 4))


@pytest.mark.parametrize("keyword", [False, True])
def test_in_an_evaluator(keyword):
    """Inferer and metric inside MONAI's engine; each item is a slice, and here a volume of one."""
    truths = [random(1, 1, 16, 16, seed=seed).abs() for seed in range(3)]
    operator = Inpainting((random(1, 1, 16, 16, seed=9) > -1).float())
    batches = [{"image": operator(truth), "label": truth} for truth in truths]

    def prepare(batch, device, non_blocking, **_):
        args, named = ((), {"operator": operator}) if keyword else ((operator,), {})
        return batch["image"], batch["label"], args, named

    metric = VolumeMetric("nmse")
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=Adjoint(),
        prepare_batch=prepare,
        inferer=ReconstructionInferer(batch_size=1),
        key_val_metric={"nmse": IgniteMetricHandler(metric, output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=metric.metric_cmp_fn,
        decollate=False,
    )
    evaluator.run()
    losses = [float((operator.adjoint(operator(t)) - t).norm() ** 2 / t.norm() ** 2) for t in truths]
    assert evaluator.state.metrics["nmse"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert evaluator.state.metric_details["nmse"].flatten().tolist() == pytest.approx(losses, rel=1e-5)
