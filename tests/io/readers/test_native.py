import h5py
import numpy as np
import pytest
import torch

from medrecon.errors import InputError, NumericalError, UsageError
from medrecon.io.checks import with_checks
from medrecon.io.geometry import Geometry
from medrecon.io.hdf5 import Limits
from medrecon.io.options import ReadOptions
from medrecon.io.readers.native import NativeReader
from medrecon.io.source import Source
from medrecon.io.writers.measurements import write_native
from medrecon.operators import CartesianMRI


@pytest.fixture
def operator():
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(12, generator=generator) < 0.5
    mask[5:8] = True
    return CartesianMRI(mask, torch.randn(3, 10, 12, generator=generator, dtype=torch.complex64))


@pytest.fixture
def written(tmp_path, operator):
    """File with measurements of known images."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(2, 1, 10, 12, generator=generator, dtype=torch.complex64)
    geometry = Geometry(np.diag([-2.0, -2, 4, 1]) + 0.1 * np.eye(4))
    path = tmp_path / "native.h5"
    write_native(path, operator(images), operator, reference=images[:, 0].abs(), geometry=geometry, modality="MR")
    return path, images, geometry


def read(path, limits=None):
    return NativeReader().read(Source(path, limits=limits), ReadOptions())


def test_round_trip(written, operator):
    path, images, geometry = written
    with Source(path) as source:
        assert NativeReader().recognises(source)
    scan = read(path)
    assert (scan.format, scan.modality, scan.notes) == ("medrecon", "MR", ())
    rebuilt = scan.acquisition
    assert type(rebuilt) is CartesianMRI
    probe = torch.randn(1, 1, 10, 12, generator=torch.Generator().manual_seed(5), dtype=torch.complex64)
    assert torch.equal(rebuilt(probe), operator(probe))
    for index in range(2):
        assert torch.equal(scan.measurements[index], operator(images)[index])
        assert torch.equal(scan.reference[index], images[index, 0].abs())
    np.testing.assert_array_equal(scan.geometry.affine, geometry.affine)
    assert scan.geometry.oriented


def test_the_file_holds_no_variable_length_text(written):
    path, _, _ = written
    assert b"GCOL" not in path.read_bytes()
    with h5py.File(path) as file:
        assert file["measurements"].chunks == (1, 3, 10, 12)


def test_without_affine_and_reference(tmp_path, operator):
    path = tmp_path / "x.h5"
    write_native(path, torch.ones(1, *operator.data_shape, dtype=torch.complex64), operator)
    scan = read(path)
    assert scan.reference is None
    assert scan.modality == "OT"
    assert not scan.geometry.oriented
    assert any("1 mm" in note for note in scan.notes)


def test_foreign_files_are_not_recognised(fastmri_file):
    with Source(fastmri_file("single")) as source:
        assert not NativeReader().recognises(source)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("operator_config", np.bytes_(b"{"), "not a JSON object"),
        ("operator_config", np.bytes_(b"[1]"), "not a JSON object"),
        ("operator_config", np.bytes_(b"[" * 100000), "not a JSON object"),
        ("operator_config", np.bytes_(b"{}"), "cannot be built from the file"),
        ("operator_config", np.bytes_(b'{"operator": "cartesian-mri"}'), "'cartesian-mri' cannot be built"),
        ("operator_config", np.bytes_(b'{"operator": "of-the-future"}'), "no operator is called"),
        ("measurements", np.ones((2, 3, 10, 11), np.complex64), r"\(2, 3, 10, 11\).*expected \(slices, 3, 10, 12\)"),
        ("measurements", np.ones((2, 3, 10, 12)), "type float64"),
        ("measurements", np.ones((0, 3, 10, 12), np.complex64), r"shape \(0,"),
        ("reference", np.ones((3, 10, 12)), "expected real"),
        ("affine", np.zeros((4, 4)), "invertible"),
        ("affine", np.ones(3), "invertible"),
    ],
)  # fmt: skip
def test_wrong_contents_are_input_errors(written, name, value, message):
    path, _, _ = written
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_an_unknown_modality_is_an_input_error(written):
    path, _, _ = written
    with h5py.File(path, "a") as file:
        file.attrs["modality"] = np.bytes_(b"XX")
    with pytest.raises(InputError, match="not one of MR, CT, OT"):
        read(path)


def test_an_operator_of_many_is_refused(tmp_path, operator):
    many = CartesianMRI(torch.ones(2, 10, 12, dtype=torch.bool))
    with pytest.raises(UsageError, match="batch of 2"):
        write_native(tmp_path / "x.h5", torch.ones(2, 1, 10, 12, dtype=torch.complex64), many)


def test_texts_among_the_tensors_are_refused(written):
    path, _, _ = written
    with h5py.File(path, "a") as file:
        file["operator/extra"] = np.array([b"x"])
    with pytest.raises(InputError, match="'operator/extra' holds"):
        read(path)


def test_another_key_is_an_input_error(written):
    path, _, _ = written
    with Source(path) as source, pytest.raises(InputError, match="not in 'kspace'"):
        NativeReader().read(source, ReadOptions(key="kspace"))


def test_mutated_files_are_read_or_refused(written):
    path, _, _ = written
    original = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(6):
        data = bytearray(original)
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with Source(path, limits=Limits(metadata_seconds=2.0)) as source:
            try:
                if NativeReader().recognises(source):
                    scan = with_checks(NativeReader().read(source, ReadOptions()), "error")
                    assert [scan.measurements[index].shape for index in range(len(scan.measurements))]
            except (InputError, NumericalError) as error:
                assert str(path) in str(error)  # noqa: PT017 -- any other exception fails the test by itself
