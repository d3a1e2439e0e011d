"""Files of both kinds, and MONAI as a pipeline finds it after ``register()``."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import monai.transforms  # noqa: F401 (what MONAI's dependencies warn of at import is not ours)

from medrecon.io import write_sinogram
from medrecon.operators import ParallelBeam2D
from medrecon.pipelines import register


@pytest.fixture(autouse=True)
def _registered():
    """Pytest resets the warning filters for each test."""
    register()


@pytest.fixture
def sinogram_file(tmp_path):
    """Two slices of 40 x 40 pixels, 30 views, in our own layout."""
    angles = torch.arange(30, dtype=torch.float64) * torch.pi / 30
    operator = ParallelBeam2D((40, 40), angles, detector_count=61, pixel_size=2.0)
    image = torch.zeros(2, 1, 40, 40)
    image[:, :, 10:30, 8:25] = 0.02
    image[1, :, 15:20, 10:20] = 0.03
    path = tmp_path / "sino.h5"
    write_sinogram(path, operator(image), operator, mu_water=0.02, reference=image[:, 0])
    return path
