import h5py
import numpy as np
import pytest
import torch

from medrecon.errors import UsageError
from medrecon.io.hdf5 import Hdf5File
from medrecon.io.options import ReadOptions
from medrecon.io.readers.fastmri import FastMRIReader
from medrecon.io.scan import SliceStack
from medrecon.io.source import Source
from medrecon.io.writers.measurements import write_fastmri, write_native
from medrecon.operators import CartesianMRI


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)


def read(path):
    return FastMRIReader().read(Source(path), ReadOptions())


def test_fastmri_files_come_back(tmp_path):
    kspace, mask = noise(2, 3, 12, 11), torch.arange(11) % 3 == 0
    kspace = kspace * mask
    header = {"field_strength": 3.0, "echo_time": 22.5, "repetition_time": 2800, "flip_angle": 140, "name": "SECRET"}
    path = tmp_path / "out.h5"
    geometry = {"matrix": (8, 9), "spacing": (1.25, 1.5, 4.0)}
    write_fastmri(path, kspace, mask=mask, acquisition="AXT2", acceleration=3, header=header, **geometry)
    scan = read(path)
    for index in range(2):
        assert torch.equal(scan.measurements[index], kspace[index])
    assert torch.equal(scan.acquisition.mask.flatten(), mask)
    assert scan.acquisition.matrix == (8, 9)
    assert scan.geometry.spacing == pytest.approx((1.25, 1.5, 4.0))
    assert {name: scan.header[name] for name in ("acquisition", "acceleration", "echo_time", "field_strength")} == {
        "acquisition": "AXT2", "acceleration": 3, "echo_time": 22.5, "field_strength": 3.0,
    }  # fmt: skip
    data = path.read_bytes()
    assert b"GCOL" not in data  # no text of variable length
    assert b"SECRET" not in data
    with h5py.File(path) as file:
        assert file["kspace"].chunks == (1, 3, 12, 11)
        assert "reconstruction_rss" not in file


def test_one_coil_gives_the_single_coil_layout(tmp_path):
    kspace, reference = noise(2, 1, 12, 10), noise(2, 6, 6).abs()
    path = tmp_path / "out.h5"
    write_fastmri(path, SliceStack.from_tensor(kspace), reference=reference)
    with h5py.File(path) as file:
        assert file["kspace"].shape == (2, 12, 10)
        assert sorted(file) == ["ismrmrd_header", "kspace", "reconstruction_esc"]
        assert file.attrs["max"] == pytest.approx(float(reference.max()))
        assert file.attrs["norm"] == pytest.approx(float(reference.norm()))
    scan = read(path)
    assert torch.equal(scan.measurements[1], kspace[1])
    assert torch.equal(scan.reference[1], reference[1])
    assert scan.acquisition.matrix == (6, 6)


@pytest.mark.parametrize("columns", [10, 11])
def test_padding_comes_back(tmp_path, columns):
    kspace = noise(1, 2, 8, columns)
    kspace[..., :2] = 0
    kspace[..., -1:] = 0
    path = tmp_path / "out.h5"
    write_fastmri(path, kspace, padding=(2, 1))
    mask = read(path).acquisition.mask.flatten()
    assert mask.tolist() == [False] * 2 + [True] * (columns - 3) + [False]


def test_the_header_is_valid_ismrmrd(tmp_path):
    xsd = pytest.importorskip("ismrmrd.xsd", reason="needs the ISMRMRD package to validate the header")
    path = tmp_path / "out.h5"
    write_fastmri(path, noise(1, 2, 8, 6), spacing=(2.0, 3.0, 4.0), header={"field_strength": 1.5, "echo_time": 10})
    with Hdf5File(path) as file:
        header = xsd.CreateFromDocument(file.read_text("ismrmrd_header").encode())
    encoding = header.encoding[0]
    assert (encoding.encodedSpace.matrixSize.x, encoding.encodedSpace.matrixSize.y) == (8, 6)
    assert (encoding.reconSpace.fieldOfView_mm.x, encoding.reconSpace.fieldOfView_mm.y) == (24.0, 12.0)
    assert encoding.encodingLimits.kspace_encoding_step_1.maximum == 5
    assert header.sequenceParameters.TE == [10.0]
    assert header.acquisitionSystemInformation.systemFieldStrength_T == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kspace": noise(2, 8, 6)}, r"k-space has shape \(2, 8, 6\)"),
        ({"mask": torch.ones(5)}, r"mask has shape \(5,\), expected \(6,\)"),
        ({"reference": torch.ones(3, 4, 4)}, r"reference has shape \(3, 4, 4\), expected \(1, h, w\)"),
        ({"padding": (3, 3)}, "does not fit 6 columns"),
        ({"padding": (-1, 0)}, "does not fit 6 columns"),
        ({"acquisition": "<x/>"}, "letters, digits and underscores"),
    ],
)
def test_wrong_calls_write_nothing(tmp_path, arguments, message):
    path = tmp_path / "out.h5"
    with pytest.raises(UsageError, match=message):
        write_fastmri(path, **({"kspace": noise(1, 2, 8, 6)} | arguments))
    assert list(tmp_path.iterdir()) == []


def test_wrong_native_calls(tmp_path):
    operator, data = CartesianMRI(image_shape=(8, 6)), noise(2, 1, 8, 6)
    path = tmp_path / "out.h5"
    with pytest.raises(UsageError, match=r"shape \(2, 1, 8, 5\), expected \(slices, 1, 8, 6\)"):
        write_native(path, data[..., 1:], operator)
    with pytest.raises(UsageError, match="modality 'PT', expected one of MR, CT, OT"):
        write_native(path, data, operator, modality="PT")
    with pytest.raises(UsageError, match="reference has shape"):
        write_native(path, data, operator, reference=torch.ones(2, 8))


def test_files_are_complete_or_absent(tmp_path):
    def fail(index):
        if index:
            raise RuntimeError("the source dried up")
        return noise(2, 8, 6)

    path = tmp_path / "out.h5"
    with pytest.raises(RuntimeError, match="dried up"):
        write_fastmri(path, SliceStack(2, (2, 8, 6), fail))
    assert list(tmp_path.iterdir()) == []
    write_fastmri(path, noise(1, 2, 8, 6))
    with pytest.raises(UsageError, match="--overwrite"):
        write_fastmri(path, noise(1, 2, 8, 6))
    write_fastmri(path, 2 * noise(1, 2, 8, 6), overwrite=True)
    np.testing.assert_array_equal(read(path).measurements[0].numpy(), 2 * noise(1, 2, 8, 6)[0].numpy())
