"""A small image and its simulated scan, made through the commands themselves."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from medrecon.cli import main
from medrecon.simulation import brain_phantom


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    """NIfTI with two slices and a rotated, anisotropic affine."""
    planes = 1000 * brain_phantom(2, (128, 160), torch.Generator().manual_seed(0)).numpy()
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.5, -2.0, 3.0])
    affine[:3, 3] = [30, 40, -20]
    path = tmp_path_factory.mktemp("image") / "brain.nii.gz"
    nib.save(nib.Nifti1Image(planes.transpose(2, 1, 0).astype(np.float32), affine), path)
    return path


@pytest.fixture(scope="session")
def scan_file(image_file, tmp_path_factory):
    """Eight coils, four-fold undersampled, with a little noise."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    command = ["simulate", image_file, "--operator", "mri-cartesian-4x", "--noise", "0.002", "-o", path, "-q"]
    assert main(list(map(str, command))) == 0
    return path


@pytest.fixture
def medrecon(capsys):
    """Run a command; return exit code, standard output and standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def medrecon_json(medrecon):
    """Run a command with --json; return what it says, and fail if it fails."""

    def run(*arguments):
        code, out, err = medrecon(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run
