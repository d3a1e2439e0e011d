"""Read-out oversampling taken away in k-space: the same image, from half the data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medrecon.io import CartesianAcquisition, Geometry, Scan, SliceStack, read_scan
from medrecon.io.oversampling import crop_readout, without_readout_oversampling
from medrecon.operators import Inpainting
from medrecon.reconstructors.plan import ReconstructionPlan
from medrecon.reconstructors.volume import reconstruct_scan

SLICES, COILS, HEIGHT, WIDTH, ROWS, COLUMNS = 3, 4, 37, 22, 17, 19


def centred(transform, x, axes):
    return np.fft.fftshift(transform(np.fft.ifftshift(x, axes), norm="ortho", axes=axes), axes)


def sensitivities():
    """(1, 1, COILS, HEIGHT, WIDTH): smooth, and of different phases."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    angles = 2 * np.pi * np.arange(COILS) / COILS
    return np.stack([np.exp(1j * (a + y) - ((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 2) for a in angles])[
        None, None
    ]


MAPS = torch.from_numpy(sensitivities().astype(np.complex64))
LINES = torch.zeros(WIDTH, dtype=torch.bool)
LINES[::2] = LINES[8:14] = True


def images():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((2, SLICES, HEIGHT, WIDTH))
    return 1e-3 * (noise[0] + 1j * noise[1])


def kspace(mask=None):
    """Fully sampled with signal everywhere, outside the field of view as well; masked where a mask is given."""
    samples = torch.from_numpy(centred(np.fft.fftn, images()[:, None] * sensitivities()[0], (-2, -1)))
    return (samples if mask is None else samples * mask).to(torch.complex64)


def scan_of(samples, **known):
    acquisition = CartesianAcquisition(**{"matrix": (ROWS, COLUMNS), **known})
    geometry = Geometry.from_spacing((1.0, 1.0, 1.0), (SLICES, ROWS, COLUMNS))
    return Scan(Path("scan.h5"), "test", SliceStack.from_tensor(samples), acquisition, geometry)


@pytest.mark.parametrize(("height", "rows"), [(37, 17), (37, 18), (36, 17), (36, 18), (36, 1), (37, 37)])
def test_kspace_of_the_central_rows(height, rows):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((2, 3, height, 7)) + 1j * rng.standard_normal((2, 3, height, 7))
    top = (height - rows) // 2
    wanted = centred(np.fft.fftn, centred(np.fft.ifftn, samples, (-2,))[..., top : top + rows, :], (-2,))
    found = crop_readout(torch.from_numpy(samples), rows)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


class TestSameImage:
    @pytest.mark.parametrize("mask", [None, LINES])
    @pytest.mark.parametrize(
        ("method", "parameters"),
        [("rss", {}), ("adjoint", {}), ("cgls", {"max_iter": 300, "tol": 1e-7})],
    )
    def test_of_methods_that_decouple_the_rows(self, method, parameters, mask):
        """The adjoint always; least squares, whose solution is unique for four coils and two in three lines."""
        scan = scan_of(kspace(mask), mask=LINES if mask is not None else torch.ones(WIDTH, dtype=torch.bool), maps=MAPS)
        whole, cropped = (
            reconstruct_scan(scan, ReconstructionPlan(method, parameters, crop_readout=crop)).array
            for crop in (False, True)
        )
        assert whole.shape == cropped.shape == (SLICES, ROWS, COLUMNS)
        np.testing.assert_allclose(cropped, whole, atol=1e-5 * whole.max())
        if method == "cgls":
            top, left = (HEIGHT - ROWS) // 2, (WIDTH - COLUMNS) // 2
            wanted = np.abs(images())[:, top : top + ROWS, left : left + COLUMNS]
            np.testing.assert_allclose(cropped, wanted, atol=2e-3 * wanted.max())

    @pytest.mark.parametrize("kind", ["multi", "single", "brain", "test"])
    def test_of_files_of_fastmri(self, fastmri_file, kind):
        scan = read_scan(fastmri_file(kind))
        assert without_readout_oversampling(scan).measurements.shape == (
            scan.measurements.shape[0],
            32,
            scan.measurements.shape[2],
        )
        whole, cropped = (
            reconstruct_scan(scan, ReconstructionPlan("rss", crop_readout=crop)).array for crop in (False, True)
        )
        np.testing.assert_allclose(cropped, whole, atol=1e-5 * whole.max())

    def test_total_variation_of_an_object_inside(self):
        """Not the same problem at the border of the crop: close where the object ends inside."""
        y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
        inside = ((y / 0.3) ** 2 + (x / 0.6) ** 2 < 1) * (1.0 + (x > 0))
        samples = centred(np.fft.fftn, inside * sensitivities()[0], (-2, -1)) * LINES.numpy()
        scan = scan_of(torch.from_numpy(samples.astype(np.complex64)).expand(SLICES, -1, -1, -1), mask=LINES, maps=MAPS)
        whole, cropped = (
            reconstruct_scan(scan, ReconstructionPlan("tv", {"max_iter": 200}, crop_readout=crop)).array
            for crop in (False, True)
        )
        assert np.linalg.norm(cropped - whole) < 0.01 * np.linalg.norm(whole)


class TestWhatChanges:
    @pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (1, 1, WIDTH), (SLICES, 1, WIDTH), (1, HEIGHT, WIDTH)])
    def test_masks_of_lines(self, shape):
        mask = LINES.expand(shape)
        result = without_readout_oversampling(scan_of(kspace(LINES), mask=mask))
        assert result.measurements.shape == (COILS, ROWS, WIDTH)
        found = result.acquisition.mask.expand(SLICES, ROWS, WIDTH)
        assert torch.equal(found, LINES.expand(SLICES, ROWS, WIDTH))

    def test_masks_of_every_slice(self):
        mask = torch.stack([LINES.roll(index) for index in range(SLICES)])[:, None].expand(SLICES, HEIGHT, WIDTH)
        result = without_readout_oversampling(scan_of(kspace(mask[:, None]), mask=mask))
        assert torch.equal(result.acquisition.mask.expand(SLICES, ROWS, WIDTH), mask[:, :ROWS])
        for index in range(SLICES):
            assert torch.equal((result.measurements[index] != 0).any(0), mask[index, :ROWS])

    def test_lines_that_only_the_zeros_tell(self):
        result = without_readout_oversampling(scan_of(kspace(LINES)))
        assert result.acquisition.mask is None
        for index in range(SLICES):
            assert torch.equal((result.measurements[index] != 0).any(0), LINES.expand(ROWS, WIDTH))

    @pytest.mark.parametrize("lead", [(1, 1), (SLICES, 2)])
    def test_maps_are_cropped(self, lead):
        maps = MAPS.expand(*lead, COILS, HEIGHT, WIDTH)
        result = without_readout_oversampling(scan_of(kspace(), mask=LINES, maps=maps))
        assert torch.equal(result.acquisition.maps, maps[..., 10:27, :])

    def test_all_else_stays(self):
        scan = scan_of(kspace(LINES), mask=LINES)
        result = without_readout_oversampling(scan)
        assert replace(result, measurements=scan.measurements, acquisition=scan.acquisition) == scan
        assert result.acquisition.matrix == (ROWS, COLUMNS)

    def test_slices_are_read_when_they_are_asked_for(self):
        samples, reads = kspace(LINES), []

        def read(index):
            reads.append(index)
            return samples[index]

        scan = replace(scan_of(samples, mask=LINES), measurements=SliceStack(SLICES, (COILS, HEIGHT, WIDTH), read))
        result = without_readout_oversampling(scan)
        assert reads == []
        assert len(result.measurements) == SLICES
        assert torch.equal(result.measurements[2], crop_readout(samples[2], ROWS))
        assert reads == [2]


class TestLeftAlone:
    POINTS = LINES.expand(HEIGHT, WIDTH) & (torch.arange(HEIGHT)[:, None] % 3 > 0)

    @pytest.mark.parametrize(
        "known",
        [
            {"mask": POINTS[None]},
            {"mask": LINES, "calibration": SliceStack.from_tensor(torch.ones(SLICES, COILS, 8, 8))},
            {"mask": LINES, "matrix": None},
            {"mask": LINES, "matrix": (HEIGHT, COLUMNS)},
            {"mask": LINES, "matrix": (HEIGHT + 5, COLUMNS)},
        ],
        ids=["points", "calibration", "no matrix", "no oversampling", "larger matrix"],
    )
    def test_scans(self, known):
        scan = scan_of(kspace(LINES), **known)
        assert without_readout_oversampling(scan) is scan

    def test_zeros_that_tell_of_points(self):
        scan = scan_of(kspace(self.POINTS))
        assert without_readout_oversampling(scan) is scan

    def test_partial_echo_that_only_the_zeros_tell(self):
        samples = kspace(LINES)
        samples[:, :, :9] = 0
        scan = scan_of(samples)
        assert without_readout_oversampling(scan) is scan

    def test_one_slice_of_points(self):
        mask = torch.stack([LINES.expand(HEIGHT, WIDTH)] * 2 + [self.POINTS])
        scan = scan_of(kspace(mask[:, None]), mask=mask)
        assert without_readout_oversampling(scan) is scan

    def test_other_operators(self):
        operator = Inpainting(torch.ones(1, 8, 8))
        scan = replace(scan_of(kspace()), acquisition=operator)
        assert without_readout_oversampling(scan) is scan
