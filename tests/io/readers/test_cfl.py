"""BART's format: round trips, BART itself as oracle, hostile headers."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medrecon.errors import InputError, UsageError
from medrecon.io.options import ReadOptions
from medrecon.io.readers.cfl import CflReader, bart_axes, is_cfl, open_cfl, pair, read_dims, write_cfl
from medrecon.io.source import Source


def complex_normal(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("shape", [(5,), (5, 4), (6, 5, 1, 3), (3, 1, 2, 1, 2)])
def test_round_trip(tmp_path, shape):
    array = complex_normal(shape)
    write_cfl(tmp_path / "a.cfl", array)
    back = open_cfl(tmp_path / "a")
    assert back.shape == shape + (1,) * (16 - len(shape))
    assert np.array_equal(back.reshape(shape, order="F"), array)


def test_pair_of_any_name(tmp_path):
    for name in ("k.v1", "k.v1.cfl", "k.v1.hdr"):
        assert [path.name for path in pair(tmp_path / name)] == ["k.v1.hdr", "k.v1.cfl"]


def test_existing_files_are_kept(tmp_path):
    write_cfl(tmp_path / "a", complex_normal((2, 2)))
    with pytest.raises(UsageError):
        write_cfl(tmp_path / "a", complex_normal((3, 3)))
    assert read_dims(tmp_path / "a.hdr")[:2] == (2, 2)
    write_cfl(tmp_path / "a", complex_normal((3, 3)), overwrite=True)
    assert read_dims(tmp_path / "a.hdr")[:2] == (3, 3)


def test_write_refuses_what_bart_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="axes"):
        write_cfl(tmp_path / "a", np.zeros((1,) * 17, np.complex64))
    with pytest.raises(ValueError, match="empty"):
        write_cfl(tmp_path / "a", np.zeros((2, 0), np.complex64))


@pytest.mark.skipif(shutil.which("bart") is None, reason="needs the BART toolbox as oracle")
def test_bart_reads_and_writes_the_same(tmp_path):
    array = complex_normal((4, 3, 1, 2))
    write_cfl(tmp_path / "ours", array)
    subprocess.run(["bart", "scale", "2", "ours", "theirs"], cwd=tmp_path, check=True, capture_output=True)
    assert np.array_equal(np.asarray(open_cfl(tmp_path / "theirs"))[(..., *(0,) * 12)], 2 * array)
    with Source(tmp_path / "theirs.cfl") as source:
        scan = CflReader().read(source, ReadOptions())
    assert np.array_equal(scan.measurements[0].numpy(), 2 * array[:, :, 0].transpose(2, 0, 1))


@pytest.mark.parametrize("opened", ["k.cfl", "k.hdr"])
def test_reader_knows_barts_axes(tmp_path, opened):
    array = complex_normal((6, 5, 1, 3))
    array[3, 2] *= 50
    write_cfl(tmp_path / "k", array)
    with Source(tmp_path / opened) as source:
        assert CflReader().recognises(source)
        scan = CflReader().read(source, ReadOptions())
    assert scan.format == "cfl"
    assert np.array_equal(scan.measurements[0].numpy(), array[:, :, 0].transpose(2, 0, 1))


def test_slices_and_averages_have_their_places(tmp_path):
    array = complex_normal((6, 5, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4))
    write_cfl(tmp_path / "k", array)
    with Source(tmp_path / "k.cfl") as source:
        scan = CflReader().read(source, ReadOptions())
    expected = array.reshape(6, 5, 3, 2, 4)[..., 1, :].mean(-1).transpose(2, 0, 1)
    assert len(scan.measurements) == 2
    assert np.allclose(scan.measurements[1].numpy(), expected, atol=1e-6)
    assert any("4 repeats: averaged" in note for note in scan.notes)


def test_slice_cut_out_of_a_volume():
    assert bart_axes((1, 230, 180, 8), None)[:4] == ("_", "y", "x", "coil")


def test_axes_of_the_user_replace_barts(tmp_path):
    array = complex_normal((3, 6, 5))
    write_cfl(tmp_path / "k", array)
    with Source(tmp_path / "k.cfl") as source:
        scan = CflReader().read(source, ReadOptions(axes="coil,y,x"))
    assert np.array_equal(scan.measurements[0].numpy(), array)


def test_unknown_axis_asks_for_names(tmp_path):
    write_cfl(tmp_path / "k", complex_normal((4, 4, 1, 2, 2)))
    with Source(tmp_path / "k.cfl") as source, pytest.raises(InputError, match=r"axis 4 has length 2.*--axes"):
        CflReader().read(source, ReadOptions())


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("# Dimensions\n4 4 0\n", "positive sizes"),
        ("# Dimensions\n4 -4\n", "positive sizes"),
        ("# Dimensions\n4 4.5\n", "positive sizes"),
        ("# Dimensions\n" + "9" * 30 + "\n", "positive sizes"),
        ("# Dimensions\n9999999999 9999999999 9999999999\n", "truncated"),
        ("# Dimensions\n" + "1 " * 17 + "\n", "at most 16"),
        ("# Dimensions\n", "not a BART header"),
        ("# Dimensions", "not a BART header"),
        ("# Command\nfft\n", "not a BART header"),
        ("# Dimensions\n\n", "positive sizes"),
        ("", "not a BART header"),
        ("# Dimensions\n٤ 4\n", "cannot be read as a BART header"),
        ("# Dimensions\n4 3\n", "128 bytes.*96 bytes"),
        ("# Dimensions\n4 5\n", "128 bytes.*160 bytes"),
    ],
)
def test_hostile_headers(tmp_path, header, says):
    (tmp_path / "k.cfl").write_bytes(bytes(128))
    (tmp_path / "k.hdr").write_text(header, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        open_cfl(tmp_path / "k.cfl")


def test_missing_halves(tmp_path):
    (tmp_path / "a.cfl").write_bytes(bytes(8))
    with pytest.raises(InputError, match=r"a\.hdr: not found"):
        open_cfl(tmp_path / "a.cfl")
    (tmp_path / "b.hdr").write_text("# Dimensions\n1\n")
    with pytest.raises(InputError, match=r"b\.cfl: not found beside b\.hdr"):
        open_cfl(tmp_path / "b.hdr")
    assert not is_cfl(tmp_path / "a.cfl")
    assert not is_cfl(tmp_path / "b.hdr")
    assert not is_cfl(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_header_is_read_or_refused(tmp_path, content):
    (tmp_path / "k.cfl").write_bytes(bytes(64))
    for data in (content, b"# Dimensions\n" + content):
        (tmp_path / "k.hdr").write_bytes(data)
        try:
            array = open_cfl(tmp_path / "k.cfl")
        except InputError:
            continue
        assert array.nbytes == 64


@pytest.mark.parametrize("sets", [1, 2])
def test_barts_maps_and_calibration_go_with_barts_kspace(tmp_path, sets):
    maps = complex_normal((8, 6, 1, 3, sets), seed=1)
    calibration = complex_normal((4, 5, 1, 3), seed=2)
    for name, array in (("k", complex_normal((8, 6, 1, 3))), ("maps", maps), ("calibration", calibration)):
        write_cfl(tmp_path / name, array)
    options = ReadOptions(maps=tmp_path / "maps.cfl", calibration=tmp_path / "calibration")
    with Source(tmp_path / "k.cfl") as source:
        acquisition = CflReader().read(source, options).acquisition
    assert np.array_equal(acquisition.maps.numpy(), maps[:, :, 0].transpose(3, 2, 0, 1)[None])
    assert np.array_equal(acquisition.calibration[0].numpy(), calibration[:, :, 0].transpose(2, 0, 1))
