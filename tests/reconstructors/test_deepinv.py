"""deepinv's samplers with our prior: where the package is installed, and a word where it is not."""

import pytest
import torch

from medrecon.errors import UsageError
from medrecon.models.ddpm import DiffusionPrior
from medrecon.models.deepinv_samplers import import_deepinv
from medrecon.operators import CartesianMRI, Inpainting
from medrecon.reconstructors import make_method


def has_deepinv():
    try:
        import_deepinv("dps")
    except UsageError:
        return False
    return True


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for channels in (1, 2):
        found[channels] = str(tmp_path_factory.mktemp("priors") / str(channels))
        DiffusionPrior.from_preset("tiny", image_channels=channels).save(found[channels])
    return found


@pytest.mark.skipif(has_deepinv(), reason="deepinv is installed")
@pytest.mark.parametrize("name", ["dps", "diffpir"])
def test_says_what_is_missing(folders, name):
    with pytest.raises(UsageError, match=rf"{name}: needs deepinv .* pip install deepinv"):
        make_method(name, {"checkpoint": folders[1]})


@pytest.mark.skipif(not has_deepinv(), reason="needs deepinv")
@pytest.mark.parametrize("name", ["dps", "diffpir"])
@pytest.mark.parametrize("channels", [1, 2])
def test_draws_an_image(folders, name, channels):
    mask = torch.rand(12, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    operator = Inpainting(mask[None]) if channels == 1 else CartesianMRI(mask, image_shape=(12, 8))
    x = torch.rand(1, *operator.image_shape).to(operator.image_dtype)
    y = operator(x)
    method = make_method(name, {"checkpoint": folders[channels], "steps": 12})
    image = method(y, operator)
    assert image.shape == x.shape
    assert image.dtype == x.dtype
    assert torch.equal(image, method(y, operator))
    if name == "diffpir":
        assert float((operator(image) - y).norm() / y.norm()) < 0.1
