"""Simulated measurements inside a MONAI pipeline."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose, DeleteItemsd, EnsureChannelFirstd, LoadImaged
from monai.transforms.spatial.dictionary import Flipd
from monai.utils import set_determinism

from medrecon.errors import UsageError
from medrecon.operators import CartesianMRI
from medrecon.operators.recipes import load_recipe
from medrecon.pipelines import Reconstructd, SimulateMeasurementsd, collate_with_operators

AFFINE = np.array([[0, -2.0, 0, 5], [-2, 0, 0, 7], [0, 0, 3, -9], [0, 0, 0, 1]])


def phantom(*shape):
    image = torch.zeros(1, *shape)
    image[:, 8:25, 10:30] = 1
    image[:, 10:12, 12:28] = 2
    return MetaTensor(image, affine=torch.tensor(AFFINE))


@pytest.mark.parametrize("shape", [(33, 41), (33, 41, 1), (34, 47, 3)])
@pytest.mark.parametrize(
    ("recipe", "dtype", "modality", "scale", "worst"),
    [
        ("mri-cartesian-4x", torch.complex64, "MR", 1.0, 0.12),
        ("ct-parallel-60", torch.float32, "CT", 0.02, 0.15),
        ("block-cs-50", torch.float32, "OT", 1.0, 0.05),
    ],
)
def test_there_and_back(shape, recipe, dtype, modality, scale, worst):
    """Odd sizes, a rotated affine; an image that is not symmetric comes back the same way round."""
    truth = phantom(*shape) * scale
    item = SimulateMeasurementsd("image", recipe, noise=0.001, seed=3)({"image": truth})
    measured = item["image_measurements"]
    operator = item["image_measurements_operator"]
    slices = shape[2] if len(shape) == 3 else 1
    assert measured.dtype == dtype
    assert tuple(measured.shape) == (operator.data_shape[0], slices, *operator.data_shape[1:])
    assert operator.image_shape[-2:] == (shape[1], shape[0])
    item = Reconstructd("image_measurements")(item)
    image = item["image_measurements"]
    assert tuple(image.shape) == (1, *shape[:2], slices)
    assert image.meta["modality"] == modality
    assert np.array_equal(image.affine.numpy(), AFFINE)
    assert image.meta["oriented"] is True
    error = (image.as_tensor().reshape(-1) - truth.as_tensor().reshape(-1)).norm() / truth.as_tensor().norm()
    assert error < worst
    assert torch.equal(item["image"], truth)


def test_pixel_size_comes_from_the_affine():
    truth = phantom(33, 41, 1)
    assert _operator(SimulateMeasurementsd("image", "ct-parallel-60", seed=0), truth).pixel_size == pytest.approx(2.0)
    given = SimulateMeasurementsd("image", "ct-parallel-60", seed=0, pixel_size=0.5)
    assert _operator(given, truth).pixel_size == 0.5
    oblong = MetaTensor(truth.as_tensor(), affine=torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))
    with pytest.raises(UsageError, match="square pixels, these are 1 x 2 mm"):
        SimulateMeasurementsd("image", "ct-parallel-60")({"image": oblong})
    with pytest.raises(UsageError, match="Hounsfield"):
        SimulateMeasurementsd("image", "ct-parallel-60")({"image": truth - 1000})


def test_chance_follows_monai():
    truth = phantom(33, 41)
    draw = SimulateMeasurementsd("image", "mri-random-4x", noise=0.01)
    first, second = (_values(draw, truth) for _ in range(2))
    assert not torch.equal(first, second)
    draw.set_random_state(seed=5)
    first = _values(draw, truth)
    assert torch.equal(_values(draw.set_random_state(seed=5), truth), first)
    chain = Compose([SimulateMeasurementsd("image", "mri-random-4x", noise=0.01)])
    chain.set_random_state(seed=7)
    first = _values(chain, truth)
    chain.set_random_state(seed=7)
    assert torch.equal(_values(chain, truth), first)
    state = torch.get_rng_state()
    _values(draw, truth)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_fixes_each_file():
    def named(name):
        return MetaTensor(phantom(33, 41).as_tensor(), meta={"filename_or_obj": f"/somewhere/{name}"})

    draw = SimulateMeasurementsd("image", "mri-random-4x", noise=0.01, seed=1)
    first = _values(draw, named("a"))
    assert torch.equal(_values(draw.set_random_state(seed=9), named("a")), first)
    assert not torch.equal(_values(draw, named("b")), first)
    other = SimulateMeasurementsd("image", "mri-random-4x", noise=0.01, seed=2)
    assert not torch.equal(_values(other, named("a")), first)


def test_recipe_names_and_phase():
    recipe = load_recipe("mri-singlecoil-4x")
    item = SimulateMeasurementsd("image", recipe, phase=False, seed=0, postfix="kspace")({"image": phantom(33, 41)})
    operator = item["image_kspace_operator"]
    assert isinstance(operator, CartesianMRI)
    rows = phantom(33, 41).as_tensor()[0].T
    expected = operator(rows[None, None].to(torch.complex64))
    assert torch.allclose(item["image_kspace"].as_tensor()[:, 0], expected[0])


def test_loader_with_operators_gives_one_operator_a_batch(tmp_path):
    for name in "ab":
        nibabel.save(nibabel.Nifti1Image(phantom(33, 41, 1).numpy()[0], AFFINE), tmp_path / f"{name}.nii.gz")
    items = [{"image": tmp_path / f"{name}.nii.gz"} for name in "ab"]
    chain = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), SimulateMeasurementsd("image", "mri-random-4x", seed=0)]
    )
    data = CacheDataset(items, chain, progress=False)
    (batch,) = list(DataLoader(data, batch_size=2, collate_fn=collate_with_operators))
    operator = batch["image_measurements_operator"]
    assert operator.batch_size == 2
    measured = batch["image_measurements"].as_tensor().squeeze(2)
    assert measured.shape == (2, *operator.data_shape)
    assert torch.equal(operator.mask.expand(2, 41, 33)[:, None] * measured, measured)
    assert torch.equal(measured[1], data[1]["image_measurements"].as_tensor()[:, 0])
    plain = Compose([chain, DeleteItemsd("image_measurements_operator")])
    (batch,) = list(DataLoader(CacheDataset(items, plain, progress=False), batch_size=2, num_workers=1))
    assert torch.equal(batch["image_measurements"].as_tensor().squeeze(2), measured)
    with pytest.raises(UsageError, match="dictionaries"):
        collate_with_operators([1, 2])


def test_workers_draw_differently():
    set_determinism(seed=0)
    try:
        items = [{"image": phantom(33, 41)} for _ in range(2)]
        chain = Compose([SimulateMeasurementsd("image", "mri-random-4x", noise=0.01)])
        data = CacheDataset(items, chain, progress=False)
        loader = DataLoader(data, batch_size=1, num_workers=2, collate_fn=collate_with_operators)
        first, second = (batch["image_measurements"].as_tensor() for batch in loader)
    finally:
        set_determinism(None)
    assert not torch.equal(first, second)


def test_bad_input_is_named():
    with pytest.raises(UsageError, match=r"expected an image \(1, X, Y\)"):
        SimulateMeasurementsd("image", "mri-random-4x")({"image": torch.ones(2, 8, 8)})
    with pytest.raises(UsageError, match="floating-point"):
        SimulateMeasurementsd("image", "mri-random-4x")({"image": torch.ones(1, 8, 8, dtype=torch.uint8)})
    with pytest.raises(UsageError, match="noise"):
        SimulateMeasurementsd("image", "mri-random-4x", noise=-1)
    with pytest.raises(UsageError, match="pixel_size"):
        SimulateMeasurementsd("image", "mri-random-4x", pixel_size=0)
    with pytest.raises(UsageError, match="postfix"):
        SimulateMeasurementsd("image", "mri-random-4x", postfix="")
    with pytest.raises(UsageError, match="seed"):
        SimulateMeasurementsd("image", "mri-random-4x", seed=-1)
    with pytest.raises(UsageError, match="no operator recipe"):
        SimulateMeasurementsd("image", "mri-random-5x")
    pending = Flipd("image", spatial_axis=0, lazy=True)({"image": phantom(33, 41, 3)})
    with pytest.raises(UsageError, match="lazy operations are pending"):
        SimulateMeasurementsd("image", "mri-random-4x")(pending)


def _values(transform, truth):
    return transform({"image": truth})["image_measurements"].as_tensor()


def _operator(transform, truth):
    return transform({"image": truth})["image_measurements_operator"]
