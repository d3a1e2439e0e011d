"""ISMRMRD files written with the ismrmrd package: the plain RSS image must be the known one."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medrecon.errors import InputError, NumericalError
from medrecon.io.hdf5 import DatasetInfo, IsmrmrdAcquisitions
from medrecon.io.options import ReadOptions
from medrecon.io.readers.ismrmrd import IsmrmrdReader
from medrecon.io.registry import read_scan
from medrecon.io.source import Source
from medrecon.operators.fourier import centred_fft, centred_ifft

ismrmrd = pytest.importorskip("ismrmrd")
h5py = pytest.importorskip("h5py")

XML = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientName>SECRET^NAME</patientName></subjectInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63870000</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{n[0]}</x><y>{n[1]}</y><z>{n[2]}</z></matrixSize>
   <fieldOfView_mm><x>{fov[0]}</x><y>{fov[1]}</y><z>{fov[2]}</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{m[0]}</x><y>{m[1]}</y><z>{m[2]}</z></matrixSize>
   <fieldOfView_mm><x>{view[0]}</x><y>{view[1]}</y><z>{view[2]}</z></fieldOfView_mm></reconSpace>
  <trajectory>{trajectory}</trajectory>
  <encodingLimits>
   <kspace_encoding_step_1><minimum>0</minimum><maximum>{last[0]}</maximum><center>{centre[0]}</center></kspace_encoding_step_1>
   <kspace_encoding_step_2><minimum>0</minimum><maximum>{last[1]}</maximum><center>{centre[1]}</center></kspace_encoding_step_2>
  </encodingLimits>
  <parallelImaging><accelerationFactor><kspace_encoding_step_1>1</kspace_encoding_step_1>
   <kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>
   <calibrationMode>{calibration}</calibrationMode></parallelImaging>
 </encoding>
 <sequenceParameters><TR>500</TR><TE>12</TE></sequenceParameters>
</ismrmrdHeader>"""


def phantom(*shape, coils=3, seed=0):
    """Coil images (coils, *shape): a block with detail inside, zero towards the borders, smooth coil profiles."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = np.all([np.abs(grid) < 0.7 for grid in grids], axis=0)
    image = inside * (1 + 0.5 * rng.random(shape))
    profiles = [
        np.exp(-sum((grid - rng.uniform(-1, 1)) ** 2 for grid in grids) + 1j * rng.uniform(0, 6)) for _ in range(coils)
    ]
    return (np.stack(profiles) * image).astype(np.complex64)


def fft(array, axes):
    return centred_fft(torch.from_numpy(np.ascontiguousarray(array)), axes).numpy()


def rss(kspace):
    return centred_ifft(kspace).abs().square().sum(-3).sqrt().numpy()


@dataclass
class Recipe:
    """A file to write; lines are appended in the order of time."""

    n: tuple = (16, 12, 1)
    m: tuple | None = None
    fov: tuple = (160.0, 120.0, 5.0)
    view: tuple | None = None
    centre: tuple | None = None
    trajectory: str = "cartesian"
    calibration: str = "other"
    lines: list = field(default_factory=list)

    def line(self, samples, ky=0, kz=0, flags=(), centre=None, **idx):
        """Add one acquisition of (coils, samples); what is not a header field is a counter."""
        acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples, np.complex64))
        acquisition.center_sample = samples.shape[1] // 2 if centre is None else centre
        head = {"position": (0, 0, 0), "read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)}
        for name in (
            "position",
            "read_dir",
            "phase_dir",
            "slice_dir",
            "discard_pre",
            "discard_post",
            "encoding_space_ref",
        ):
            if name in idx or name in head:
                value = idx.pop(name, head.get(name))
                setattr(acquisition, name, tuple(map(float, value)) if name in head else value)
        acquisition.idx.kspace_encode_step_1, acquisition.idx.kspace_encode_step_2 = ky, kz
        for name, value in idx.items():
            setattr(acquisition.idx, name, value)
        for flag in flags:
            acquisition.set_flag(getattr(ismrmrd, f"ACQ_{flag}"))
        self.lines.append(acquisition)
        return acquisition

    def plane(self, kspace, lines=None, **fields):
        """Add lines of (coils, kx, ky)."""
        for ky in range(kspace.shape[2]) if lines is None else lines:
            self.line(kspace[:, :, ky], ky, **fields)

    @property
    def xml(self):
        centre = self.centre or (self.n[1] // 2, self.n[2] // 2)
        return XML.format(
            n=self.n, m=self.m or self.n, fov=self.fov, view=self.view or self.fov, centre=centre,
            last=(self.n[1] - 1, self.n[2] - 1), trajectory=self.trajectory, calibration=self.calibration,
        )  # fmt: skip

    def write(self, path, group="dataset"):
        with ismrmrd.File(str(path)) as file:
            dataset = file[group]
            dataset.header = ismrmrd.xsd.CreateFromDocument(self.xml)
            dataset.acquisitions = self.lines
        return path

    def read(self, options=None):
        """Read without a file: what the child process would hand over."""
        heads = b"".join(bytes(line.getHead()) for line in self.lines)
        samples = [line.data.reshape(-1) for line in self.lines]
        offsets = np.cumsum([0, *(len(row) for row in samples)])
        table = IsmrmrdAcquisitions(
            np.frombuffer(heads, ismrmrd.hdf5.acquisition_header_dtype), np.concatenate(samples), offsets,
            np.empty(0, np.float32), np.zeros(len(samples) + 1, np.int64),
        )  # fmt: skip
        return IsmrmrdReader().read(FakeSource(FakeFile(self.xml, table)), options or ReadOptions())


@dataclass
class FakeFile:
    """As much of Hdf5File as the reader uses."""

    xml: str
    table: IsmrmrdAcquisitions
    path: Path = Path("fake.h5")

    @property
    def datasets(self):
        text = DatasetInfo((1,), None, True, (), 0, 0, None, None)
        return {"dataset/xml": text, "dataset/data": replace(text, is_text=False, fields=("head", "traj", "data"))}

    def read_text(self, name):
        return self.xml

    def read_ismrmrd(self, group):
        return self.table

    def close(self):
        pass


@dataclass
class FakeSource:
    """A source that is a FakeFile."""

    hdf5: FakeFile
    path: Path = Path("fake.h5")


@pytest.fixture
def recipe():
    return Recipe()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.h5"


def test_full_plane(recipe, path):
    image = phantom(16, 12)
    kspace = fft(image, (1, 2))
    recipe.plane(kspace)
    scan = read_scan(recipe.write(path))
    assert scan.format == "ismrmrd"
    assert np.allclose(scan.measurements[0].numpy(), kspace, atol=1e-6)
    assert np.allclose(rss(scan.measurements[0]), np.sqrt((abs(image) ** 2).sum(0)), atol=1e-6)
    assert scan.acquisition.mask.shape == (1, 1, 12)
    assert scan.acquisition.mask.all()
    assert scan.acquisition.matrix is None
    assert scan.header["repetition_time"] == 500
    assert "SECRET" not in repr(scan)


def test_shuffled_undersampled_lines(recipe, path):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace, lines=[11, 1, 5, 6, 7, 3, 9])
    scan = read_scan(recipe.write(path))
    mask = np.zeros(12, bool)
    mask[[1, 3, 5, 6, 7, 9, 11]] = True
    assert np.array_equal(scan.acquisition.mask[0, 0].numpy(), mask)
    assert np.allclose(scan.measurements[0].numpy(), kspace * mask, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(32, 16), (30, 15), (34, 17), (33, 16)])
def test_readout_oversampling_is_removed(n, m):
    recipe = Recipe(n=(n, 12, 1), m=(m, 12, 1), fov=(10.0 * n, 120.0, 5.0), view=(10.0 * m, 120.0, 5.0))
    image = np.zeros((3, n, 12), np.complex64)
    start = n // 2 - m // 2
    image[:, start : start + m] = phantom(m, 12)
    recipe.plane(fft(image, (1, 2)))
    scan = recipe.read()
    assert scan.measurements.shape == (3, m, 12)
    assert np.allclose(rss(scan.measurements[0]), np.sqrt((abs(image[:, start : start + m]) ** 2).sum(0)), atol=1e-6)
    assert any("oversampling removed" in note for note in scan.notes)
    row = scan.geometry.affine @ [6, m // 2, 0, 1]
    assert np.allclose(row[:3], 0, atol=1e-9), "the image centre lies at the position of the header"


def test_phase_oversampling_is_left_to_the_crop():
    recipe = Recipe(m=(16, 8, 1), view=(160.0, 80.0, 5.0))
    recipe.plane(fft(phantom(16, 12), (1, 2)))
    scan = recipe.read()
    assert scan.measurements.shape == (3, 16, 12)
    assert scan.acquisition.matrix == (16, 8)
    assert np.allclose((scan.geometry.affine @ [4, 8, 0, 1])[:3], 0)


def test_partial_fourier_and_centre():
    recipe = Recipe(centre=(2, 0))  # 4 lines before the centre are not measured
    kspace = fft(phantom(16, 12), (1, 2))
    for step in range(8):
        recipe.line(kspace[:, :, step + 4], step)
    scan = recipe.read()
    assert np.array_equal(scan.acquisition.mask[0, 0].numpy(), np.arange(12) >= 4)
    assert np.allclose(scan.measurements[0].numpy()[..., 4:], kspace[..., 4:], atol=1e-6)


def test_partial_echo_keeps_oversampling_and_says_so():
    recipe = Recipe(m=(8, 12, 1), view=(80.0, 120.0, 5.0))
    kspace = fft(phantom(16, 12), (1, 2))
    for ky in range(12):
        recipe.line(kspace[:, 4:, ky], ky, centre=4)
    scan = recipe.read()
    expected = kspace.copy()
    expected[:, :4] = 0
    assert np.allclose(scan.measurements[0].numpy(), expected, atol=1e-6)
    assert scan.acquisition.mask.shape == (1, 16, 12)
    assert not scan.acquisition.mask[:, :4].any()
    assert scan.acquisition.matrix == (8, 12)
    assert any("partial echoes" in note for note in scan.notes)


def test_discarded_samples_count_as_not_acquired(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace, discard_pre=2, discard_post=1)
    scan = recipe.read()
    measured = scan.acquisition.mask[0].numpy()
    assert np.array_equal(measured[:, 0], (np.arange(16) >= 2) & (np.arange(16) < 15))
    assert np.allclose(scan.measurements[0].numpy(), kspace * measured, atol=1e-6)


def test_reversed_lines(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace, lines=range(0, 12, 2))
    recipe.plane(kspace[:, ::-1], lines=range(1, 12, 2), flags=["IS_REVERSE"])
    scan = recipe.read()
    assert np.allclose(scan.measurements[0].numpy(), kspace, atol=1e-6)


@pytest.mark.parametrize("counter", ["average", "repetition"])
def test_two_averages(recipe, counter):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace * 0.5, **{counter: 0})
    recipe.plane(kspace * 1.5, lines=range(4, 12), **{counter: 1})
    averaged = recipe.read()
    expected = kspace.copy()
    expected[..., :4] *= 0.5
    assert np.allclose(averaged.measurements[0].numpy(), expected, atol=1e-6)
    assert any(f"2 {counter}s: averaged" in note for note in averaged.notes)
    first = recipe.read(ReadOptions(repetitions="first"))
    assert np.allclose(first.measurements[0].numpy(), kspace * 0.5, atol=1e-6)


def test_contrasts_are_never_mixed(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace * 9, contrast=1)
    recipe.plane(kspace, contrast=0)
    scan = recipe.read()
    assert np.allclose(scan.measurements[0].numpy(), kspace, atol=1e-6)
    assert any("only contrast 0" in note for note in scan.notes)


def test_other_lines_are_left_out(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace)
    for flag in ("IS_NAVIGATION_DATA", "IS_PHASECORR_DATA", "IS_DUMMYSCAN_DATA", "IS_RTFEEDBACK_DATA"):
        recipe.line(np.full((3, 16), 100), 6, flags=[flag])
    recipe.line(np.full((3, 16), 100), 6, encoding_space_ref=1)
    recipe.line(np.full((5, 9), 100), 60, flags=["IS_SURFACECOILCORRECTIONSCAN_DATA"])
    scan = recipe.read()
    assert np.allclose(scan.measurements[0].numpy(), kspace, atol=1e-6)
    assert any("5 navigator" in note for note in scan.notes)
    assert any("other encodings" in note for note in scan.notes)


def test_noise_scan_whitens_the_coils(recipe):
    rng = np.random.default_rng(1)
    mixing = np.array([[3, 0, 0], [1, 1, 0], [0.5j, 1, 2]])
    noise = mixing @ (rng.standard_normal((2, 3, 4000)) * [[[1]], [[1]]]).sum(0)
    recipe.line(noise[:, :4000], flags=["IS_NOISE_MEASUREMENT"])
    kspace = mixing @ (rng.standard_normal((3, 16 * 12)) + 1j * rng.standard_normal((3, 16 * 12)))
    recipe.plane(kspace.reshape(3, 16, 12))
    scan = recipe.read()
    samples = scan.measurements[0].reshape(3, -1).numpy()
    covariance = np.cov(samples)
    level = np.trace(np.cov(kspace)).real
    assert np.trace(covariance).real == pytest.approx(level, rel=0.35)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.2 * np.abs(np.diag(covariance)).max()
    assert any("prewhitened with 4000" in note for note in scan.notes)


def test_useless_noise_scan_is_reported(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.line(np.zeros((3, 64)), flags=["IS_NOISE_MEASUREMENT"])
    recipe.plane(kspace)
    scan = recipe.read()
    assert np.allclose(scan.measurements[0].numpy(), kspace, atol=1e-6)
    assert any("not prewhitened" in note for note in scan.notes)


def test_embedded_calibration_fills_the_grid():
    recipe = Recipe(calibration="embedded")
    kspace = fft(phantom(16, 12), (1, 2))
    recipe.plane(kspace, lines=[0, 2, 4, 8, 10])
    recipe.plane(kspace, lines=[6], flags=["IS_PARALLEL_CALIBRATION_AND_IMAGING"])
    recipe.plane(kspace, lines=[5, 7], flags=["IS_PARALLEL_CALIBRATION"])
    scan = recipe.read()
    assert np.flatnonzero(scan.acquisition.mask[0, 0].numpy()).tolist() == [0, 2, 4, 5, 6, 7, 8, 10]
    assert scan.acquisition.calibration is None


def test_separate_calibration_stands_apart():
    recipe = Recipe(
        n=(32, 12, 1), m=(16, 12, 1), fov=(320.0, 120.0, 5.0), view=(160.0, 120.0, 5.0), calibration="separate"
    )
    image = np.zeros((3, 32, 12), np.complex64)
    image[:, 8:24] = phantom(16, 12)
    kspace = fft(image, (1, 2))
    recipe.plane(2 * kspace, lines=[3, 4, 5, 6, 7, 8], flags=["IS_PARALLEL_CALIBRATION"])
    recipe.plane(kspace, lines=range(0, 12, 2))
    scan = recipe.read()
    assert np.flatnonzero(scan.acquisition.mask[0, 0].numpy()).tolist() == list(range(0, 12, 2))
    calibration = scan.acquisition.calibration
    assert calibration.shape == (3, 16, 6)
    assert np.allclose(calibration[0].numpy(), 2 * fft(image[:, 8:24], (1, 2))[..., 3:9], atol=1e-5)


def test_slices_are_placed_in_the_patient(path):
    recipe = Recipe(fov=(160.0, 120.0, 4.0))
    images = [phantom(16, 12, seed=seed) for seed in range(3)]
    read, phase = np.array([0.6, 0.8, 0]), np.array([-0.8, 0.6, 0])
    normal = np.array([0, 0, 1.0])
    start = np.array([10.0, -20.0, 30.0])
    for index in (1, 0, 2):  # interleaved in time
        recipe.plane(
            fft(images[index], (1, 2)), slice=index, position=start + 6 * index * normal,
            read_dir=read, phase_dir=phase, slice_dir=normal,
        )  # fmt: skip
    scan = read_scan(recipe.write(path))
    for index, image in enumerate(images):
        assert np.allclose(rss(scan.measurements[index]), np.sqrt((abs(image) ** 2).sum(0)), atol=1e-6)
    assert scan.geometry.oriented
    assert scan.geometry.spacing == pytest.approx((10, 10, 6))
    lps = start + 2 * 6 * normal + (3 - 8) * 10 * read + (5 - 6) * 10 * phase
    assert np.allclose((scan.geometry.affine @ [5, 3, 2, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


def test_slice_counter_out_of_spatial_order(recipe):
    images = [phantom(16, 12, seed=seed) for seed in range(4)]
    places = [0, 10, 5, 15]
    for index, place in enumerate(places):
        recipe.plane(fft(images[index], (1, 2)), slice=index, position=(0, 0, place))
    scan = recipe.read()
    assert np.allclose(rss(scan.measurements[1]), np.sqrt((abs(images[2]) ** 2).sum(0)), atol=1e-6)
    assert scan.geometry.spacing[2] == pytest.approx(5)
    assert any("sorted by position" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([{"position": (0, 0, 0)}, {"position": (0, 0, 5)}, {"position": (0, 0, 50)}], "not equally spaced"),
        ([{}, {}], "not equally spaced"),
        ([{"read_dir": (0, 0, 0)}], "no orthogonal"),
        ([{}, {"read_dir": (0, 1, 0), "phase_dir": (1, 0, 0)}], "differ in orientation"),
        ([{"position": (0, 0, 0)}, {"position": (3, 0, 5)}], "along their normal"),
    ],
)
def test_positions_that_make_no_stack_are_not_written(recipe, fields, says):
    for index, entry in enumerate(fields):
        recipe.plane(fft(phantom(16, 12), (1, 2)), slice=index, **entry)
    scan = recipe.read()
    assert not scan.geometry.oriented
    assert any(says in note for note in scan.notes)


def test_volume_becomes_a_stack_along_the_readout(path):
    recipe = Recipe(n=(20, 12, 6), m=(10, 12, 6), fov=(200.0, 120.0, 30.0), view=(100.0, 120.0, 30.0))
    image = np.zeros((3, 20, 12, 6), np.complex64)
    image[:, 5:15] = phantom(10, 12, 6)
    kspace = fft(image, (1, 2, 3))
    mask = np.random.default_rng(0).random((6, 12)) < 0.9
    for kz in range(6):
        for ky in range(12):
            if mask[kz, ky]:
                recipe.line(kspace[:, :, ky, kz], ky, kz, position=(1, 2, 3))
    scan = read_scan(recipe.write(path))
    assert len(scan.measurements) == 10
    assert scan.measurements.shape == (3, 6, 12)
    assert np.array_equal(scan.acquisition.mask[0].numpy(), mask)
    full = fft(image, (2, 3))[:, 5:15].transpose(1, 0, 3, 2)
    for index in range(10):
        assert np.allclose(scan.measurements[index].numpy(), full[index] * mask, atol=1e-5)
    assert scan.geometry.spacing == pytest.approx((10, 5, 10))
    assert np.allclose((scan.geometry.affine @ [6, 3, 5, 1])[:3], [-1, -2, 3])
    assert np.allclose(scan.geometry.affine[:3, 2], [-10, 0, 0])


def test_several_groups_need_a_key(recipe, path):
    recipe.plane(fft(phantom(16, 12), (1, 2)))
    recipe.write(path, "first")
    recipe.write(path, "second")
    with pytest.raises(InputError, match="--key: first, second"):
        read_scan(path)
    assert read_scan(path, ReadOptions(key="second")).format == "ismrmrd"
    with Source(path) as source, pytest.raises(InputError, match="--key third"):
        IsmrmrdReader().read(source, ReadOptions(key="third"))


def test_not_a_number_names_the_acquisition(recipe):
    kspace = fft(phantom(16, 12), (1, 2))
    kspace[1, 3, 7] = np.nan
    recipe.plane(kspace)
    with pytest.raises(NumericalError, match=r"acquisition 7 .*1 of 576 samples"):
        recipe.read()
    scan = recipe.read(ReadOptions(nonfinite="zero"))
    assert torch.isfinite(torch.view_as_real(scan.measurements[0])).all()
    assert any("replaced by 0" in note for note in scan.notes)


def rewrite(path, change):
    """Replace the acquisition headers by changed ones."""
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        change(rows)
        kind = file["dataset/data"].dtype
        del file["dataset/data"]
        file.create_dataset("dataset/data", data=rows, dtype=kind)


def test_trajectories_that_are_not_supported():
    for trajectory in ("radial", "spiral", "epi"):
        recipe = Recipe(trajectory=trajectory)
        recipe.plane(fft(phantom(16, 12), (1, 2)))
        with pytest.raises(InputError, match=f"{trajectory}.*only Cartesian"):
            recipe.read()


def line_out_of_range(recipe):
    recipe.line(np.ones((3, 16)), 12)


def partition_out_of_range(recipe):
    recipe.line(np.ones((3, 16)), 3, 4)


def other_coils(recipe):
    recipe.line(np.ones((2, 16)), 3)


def too_long(recipe):
    recipe.line(np.ones((3, 64)), 3)


def all_discarded(recipe):
    recipe.line(np.ones((3, 16)), 3, discard_pre=10, discard_post=6)


def centre_outside(recipe):
    recipe.line(np.ones((3, 16)), 3, centre=16)


def centre_at_the_edge(recipe):
    recipe.line(np.ones((3, 16)), 3, centre=15)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (line_out_of_range, "kspace_encode_step_1 12 .*outside the encoded matrix of 12"),
        (partition_out_of_range, "kspace_encode_step_2 4 .*outside the encoded matrix of 1"),
        (other_coils, r"number of coils: \[2, 3\]"),
        (too_long, "do not fit the encoded matrix of 16"),
        (all_discarded, r"of which 10 \+ 6 to discard"),
        (centre_outside, "16 samples with centre 16"),
        (centre_at_the_edge, "do not fit the encoded matrix"),
    ],
)
def test_inconsistent_acquisitions(recipe, spoil, says):
    recipe.plane(fft(phantom(16, 12), (1, 2)), lines=range(3))
    spoil(recipe)
    with pytest.raises(InputError, match=says):
        recipe.read()


def test_counts_that_contradict_the_samples(recipe, path):
    recipe.plane(fft(phantom(16, 12), (1, 2)))
    recipe.write(path)

    def change(rows):
        rows["head"]["number_of_samples"][5] = 60000

    rewrite(path, change)
    with pytest.raises(InputError, match="acquisition 5"):
        read_scan(path)


def test_no_image_lines(recipe):
    recipe.plane(fft(phantom(16, 12), (1, 2)), flags=["IS_NOISE_MEASUREMENT"])
    with pytest.raises(InputError, match="none of the 12 acquisitions is an image line"):
        recipe.read()


def test_unknown_encoding(recipe):
    recipe.plane(fft(phantom(16, 12), (1, 2)), encoding_space_ref=3)
    with pytest.raises(InputError, match="encoding 3, but the header has 1"):
        recipe.read()


def test_zero_acquisitions(recipe, path):
    recipe.plane(fft(phantom(16, 12), (1, 2)), lines=[0])
    recipe.write(path)
    with h5py.File(path, "r+") as file:
        kind = file["dataset/data"].dtype
        del file["dataset/data"]
        file.create_dataset("dataset/data", shape=(0,), dtype=kind)
    with pytest.raises(InputError, match=r"no acquisitions|none were ever written"):
        read_scan(path)


@pytest.mark.parametrize(("name", "says"), [("xml", "'dataset/xml' is missing"), ("data", "'dataset/data' is missing")])
def test_missing_parts(recipe, path, name, says):
    recipe.plane(fft(phantom(16, 12), (1, 2)))
    recipe.write(path)
    with h5py.File(path, "r+") as file:
        del file[f"dataset/{name}"]
    with pytest.raises(InputError, match=says):
        read_scan(path)


def test_header_of_another_layout(path):
    kind = np.dtype([("number_of_samples", "<u2"), ("active_channels", "<u2"), ("trajectory_dimensions", "<u2")])
    row = np.dtype([("head", kind), ("traj", h5py.vlen_dtype("f4")), ("data", h5py.vlen_dtype("f4"))])
    rows = np.empty(1, row)
    rows[0] = ((2, 1, 0), np.zeros(0, "f4"), np.ones(4, "f4"))
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=rows, dtype=row)
        file["dataset/xml"] = np.bytes_(Recipe().xml)
    with pytest.raises(InputError, match=r"lack .*flags"):
        read_scan(path)


def test_huge_matrix_is_refused_before_it_is_made():
    recipe = Recipe(n=(16, 60000, 60000))
    recipe.plane(fft(phantom(16, 12), (1, 2)), kz=1)
    with pytest.raises(InputError, match="k-space on its grid"):
        recipe.read(ReadOptions(max_bytes=1 << 28))


def test_foreign_files_are_not_recognised(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((3, 4))
    (tmp_path / "b.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with Source(tmp_path / "a.h5") as source:
        assert not IsmrmrdReader().recognises(source)


def test_real_brain(shared_data):
    scan = read_scan(shared_data / "mri_kspace/ismrmrd_brain_4ch_derived/brain_4ch_full.h5")
    from scipy.io import loadmat

    images = loadmat(shared_data / "mri_kspace/gpunufft_brain_4ch_full/img_brain_4ch.mat")["img"]
    truth = np.sqrt((np.abs(images) ** 2).sum(-1)).T  # its rows are the phase-encoding lines
    image = rss(scan.measurements[0])
    assert np.linalg.norm(image / np.linalg.norm(image) - truth / np.linalg.norm(truth)) < 1e-6


def test_real_undersampled_file_with_noise_scan(shared_data):
    scan = read_scan(shared_data / "mri_kspace/ismrmrd_sirf_grappa2_simulated/grappa2_1rep.h5")
    mask = scan.acquisition.mask[0, 0].numpy()
    assert mask[::2].all()
    assert mask[114:143].all()
    assert mask.sum() == 142
    assert scan.acquisition.calibration is None
    assert any("prewhitened" in note for note in scan.notes)
