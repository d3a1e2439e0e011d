"""K-space in plain array files: what the axes are, centring, masks, calibration, 3-D, hostile files."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medrecon.errors import InputError, NumericalError
from medrecon.io.options import ReadOptions
from medrecon.io.readers.arrays import ArrayReader, load_array
from medrecon.io.source import Source
from medrecon.operators.fourier import centred_fft, centred_ifft

h5py = pytest.importorskip("h5py")
scipy_io = pytest.importorskip("scipy.io")


def kspace_of(*shape, seed=0):
    """Centred k-space with a clear maximum at DC: that of a positive image."""
    image = np.random.default_rng(seed).random(shape) + 1
    return centred_fft(torch.from_numpy(image.astype(np.complex64))).numpy()


def read(path, **options):
    with Source(path) as source:
        assert ArrayReader().recognises(source)
        return ArrayReader().read(source, ReadOptions(**options))


@pytest.fixture
def saved(tmp_path):
    def save(array, name="k.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save


def write_as(kind, path, array, name="k"):
    """The same array in each kind of container."""
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, **{name: array})
    elif kind == "mat":
        scipy_io.savemat(path, {name: array}, do_compression=True, appendmat=False)
    else:
        pair = np.dtype([("real", array.real.dtype), ("imag", array.real.dtype)])
        block = {"userblock_size": 512} if kind == "mat73" else {}
        with h5py.File(path, "w", **block) as file:
            if kind == "mat73":
                stored = np.empty(array.T.shape, pair)
                stored["real"], stored["imag"] = array.T.real, array.T.imag
                file.create_dataset(name, data=stored).attrs["MATLAB_class"] = np.bytes_("double")
            else:
                file[name] = array
        if kind == "mat73":
            with path.open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file, Platform: none".ljust(124) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "mat73", "h5"])
def test_every_container_gives_the_same(tmp_path, kind):
    kspace = kspace_of(3, 8, 10)
    for named in (False, True):  # the ending must not matter
        path = write_as(kind, tmp_path / ("file.bin" if not named else f"file.{kind}"), kspace)
        if not path.exists():  # numpy appends its own ending
            path = path.with_name(path.name + f".{kind}")
        assert np.array_equal(load_array(path), kspace)
        scan = read(path, axes="coil,y,x")
        assert scan.measurements.shape == (3, 8, 10)
        assert scan.measurements[0].dtype == torch.complex64
        assert np.array_equal(scan.measurements[0].numpy(), kspace)
        if kind != "npy":
            assert np.array_equal(load_array(path, "k"), kspace)
            with pytest.raises(InputError, match=r"no array called 'z'; the file holds k \(3, 8, 10\)"):
                load_array(path, "z")


def test_plain_2d_array_is_one_coil(saved):
    kspace = kspace_of(8, 10)
    scan = read(saved(kspace))
    assert scan.measurements.shape == (1, 8, 10)
    assert np.array_equal(scan.measurements[0][0].numpy(), kspace)
    assert not scan.geometry.oriented
    assert any("1 mm voxels" in note for note in scan.notes)


def test_3d_without_axes_asks(saved):
    with pytest.raises(InputError, match=r"shape \(4, 8, 10\).*--axes coil,y,x \| y,x,coil \| slice,y,x"):
        read(saved(kspace_of(4, 8, 10)))


def test_axes_from_npz_and_sidecar(tmp_path, saved):
    kspace = kspace_of(3, 8, 10)
    np.savez(tmp_path / "a.npz", kspace=kspace.transpose(1, 2, 0), axes="y,x,coil", other=np.ones((4, 4)))
    assert np.array_equal(read(tmp_path / "a.npz").measurements[0].numpy(), kspace)
    np.savez(tmp_path / "b.npz", kspace=kspace, axes=np.array(["coil", "y", "x"]))
    assert np.array_equal(read(tmp_path / "b.npz").measurements[0].numpy(), kspace)
    path = saved(kspace)
    for axes in ("coil,y,x", ["coil", "y", "x"]):
        path.with_suffix(".json").write_text(json.dumps({"axes": axes}))
        assert np.array_equal(read(path).measurements[0].numpy(), kspace)
    path.with_suffix(".json").write_text("{nonsense")
    with pytest.raises(InputError, match="no valid JSON"):
        read(path)
    assert read(path, axes="SLICE,y,x").measurements.shape == (1, 8, 10)


def test_slices_are_read_one_at_a_time_from_npy(saved):
    kspace = kspace_of(5, 3, 8, 10)
    path = saved(kspace)
    scan = read(path, axes="slice,coil,y,x", max_bytes=kspace.nbytes)
    assert len(scan.measurements) == 5
    assert np.array_equal(scan.measurements[4].numpy(), kspace[4])
    with pytest.raises(InputError, match="--max-bytes"):
        read(path, axes="slice,coil,y,x", max_bytes=1000)
    with pytest.raises(InputError, match="--max-bytes"):
        load_array(path, max_bytes=1000)


@pytest.mark.parametrize("dtype", ["<c16", ">c8", ">c16", "<c8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_byte_order_precision_and_layout(saved, dtype, order):
    kspace = kspace_of(8, 10)
    scan = read(saved(np.asarray(kspace, dtype=dtype, order=order)))
    assert np.allclose(scan.measurements[0][0].numpy(), kspace)


@pytest.mark.parametrize("shape", [(16, 20), (15, 21)])
def test_corner_dc_is_moved_to_the_centre(saved, shape):
    kspace = kspace_of(*shape)
    scan = read(saved(np.fft.ifftshift(kspace)))
    assert np.array_equal(scan.measurements[0][0].numpy(), kspace)
    assert any("corner of k-space" in note for note in scan.notes)
    assert not any("corner" in note for note in read(saved(kspace)).notes)


def test_noise_is_not_taken_for_uncentred(saved):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, 8)) + 1j * rng.standard_normal((8, 8))
    noise[0, 0] = 3.5
    assert np.allclose(read(saved(noise)).measurements[0][0].numpy(), noise)


def test_strange_peak_is_only_reported(saved):
    kspace = np.roll(kspace_of(16, 16), 6, axis=1)
    scan = read(saved(kspace))
    assert np.array_equal(scan.measurements[0][0].numpy(), kspace)
    assert any("not near its centre but at 8 of 16, 14 of 16" in note for note in scan.notes)


def test_real_arrays_are_refused_with_advice(saved):
    with pytest.raises(InputError, match=r"k-space is complex.*medrecon simulate"):
        read(saved(np.ones((8, 8))))
    with pytest.raises(InputError, match=r"array\[..., 0\] \+ 1j"):
        read(saved(np.ones((4, 8, 8, 2))))


def test_repeats_are_averaged_or_the_first_taken(saved):
    kspace = kspace_of(8, 10)
    path = saved(np.stack([kspace, 3 * kspace]))
    assert np.allclose(read(path, axes="average,y,x").measurements[0][0].numpy(), 2 * kspace)
    scan = read(path, axes="repetition,y,x", repetitions="first")
    assert np.allclose(scan.measurements[0][0].numpy(), kspace)
    assert any("first one taken" in note for note in scan.notes)
    assert any("1 left out" in note for note in read(path, axes="set,y,x").notes)


def test_compact_lines_are_scattered_by_the_mask(saved):
    kspace = kspace_of(3, 8, 12)
    mask = np.zeros(12, bool)
    mask[[0, 2, 4, 5, 6, 7, 8, 10]] = True
    for given_mask in (mask, np.tile(mask, (8, 1)), mask[None].astype(float), mask + 0j):
        scan = read(saved(kspace[..., mask]), axes="coil,y,x", mask=saved(given_mask, "mask.npy"))
        assert np.array_equal(scan.measurements[0].numpy(), kspace * mask)
        assert torch.equal(scan.acquisition.mask.expand(1, 8, 12), torch.from_numpy(mask).expand(1, 8, 12))
        assert any("8x12" in note for note in scan.notes)
    rows = np.zeros(16, bool)
    rows[1::2] = True
    scan = read(saved(kspace), axes="coil,y,x", mask=saved(rows[:, None] & np.ones(12, bool), "mask.npy"))
    assert scan.measurements.shape == (3, 16, 12)
    assert np.array_equal(scan.measurements[0].numpy()[:, 1::2], kspace)


def test_full_data_is_undersampled_by_the_mask(saved):
    kspace = kspace_of(3, 8, 12)
    mask = np.random.default_rng(0).random((8, 12)) < 0.5
    scan = read(saved(kspace), axes="coil,y,x", mask=saved(mask, "mask.npy"))
    assert np.array_equal(scan.measurements[0].numpy(), kspace * mask)
    assert any("set to 0" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones(9), "9 entries, 9 of them kept, does not fit k-space of 8x12"),
        (np.zeros(12), "0 everywhere"),
        (np.arange(12), "only 0"),
        (1j * np.ones(12), "only 0"),
        (np.ones((3, 8, 12)), "mask of 3 slices, but"),
        (np.eye(24), "does not fit"),
        (np.ones((2, 2, 8, 12)), "mask is"),
    ],
)
def test_masks_that_do_not_fit(saved, mask, says):
    with pytest.raises(InputError, match=says):
        read(saved(kspace_of(3, 8, 12)), axes="coil,y,x", mask=saved(mask, "mask.npy"))


def test_calibration_shares_the_axes_and_loses_empty_lines(saved):
    kspace = kspace_of(3, 8, 12)
    calibration = np.zeros((3, 8, 6), np.complex64)
    calibration[:, 1:7] = kspace[:, 1:7, 3:9]
    path = saved(calibration.transpose(1, 2, 0), "calibration.npy")
    scan = read(saved(kspace.transpose(1, 2, 0)), axes="y,x,coil", calibration=path)
    assert np.array_equal(scan.acquisition.calibration[0].numpy(), calibration[:, 1:7])
    with pytest.raises(InputError, match="of 8 coils, but the scan has 3"):
        read(saved(kspace), axes="coil,y,x", calibration=path)


def test_partial_fourier_calibration_keeps_its_centre(saved):
    kspace = kspace_of(3, 8, 48) / 10
    kspace[:, 4, 24] = 50  # the zero frequency
    calibration = kspace.copy()
    calibration[..., :20] = 0
    scan = read(saved(kspace), axes="coil,y,x", calibration=saved(calibration, "calibration.npy"))
    assert np.array_equal(scan.acquisition.calibration[0].numpy(), calibration)


def test_a_real_volume_is_no_kspace(saved):
    with pytest.raises(InputError, match=r"k-space is complex.*medrecon simulate"):
        read(saved(np.ones((3, 8, 12))))


@pytest.mark.parametrize(("value", "says"), [(0, "0 everywhere"), (np.nan, "NaN")])
def test_useless_calibration(saved, value, says):
    path = saved(np.full((3, 4, 4), value, np.complex64), "calibration.npy")
    with pytest.raises(InputError, match=says):
        read(saved(kspace_of(3, 8, 12)), axes="coil,y,x", calibration=path)


def test_maps(saved):
    kspace = kspace_of(2, 3, 8, 12)
    path = saved(kspace)
    maps = kspace_of(3, 8, 12, seed=1)
    for given_maps, shape in ((maps, (1, 1)), (np.stack([maps] * 2), (2, 1)), (maps[None, None], (1, 1))):
        scan = read(path, axes="slice,coil,y,x", maps=saved(given_maps, "maps.npy"))
        assert scan.acquisition.maps.shape == (*shape, 3, 8, 12)
        assert np.array_equal(scan.acquisition.maps[0, 0].numpy(), maps)
    with pytest.raises(InputError, match="do not fit 2 slices"):
        read(path, axes="slice,coil,y,x", maps=saved(maps[:, :4], "maps.npy"))
    with pytest.raises(InputError, match="must be complex"):
        read(path, axes="slice,coil,y,x", maps=saved(np.abs(maps), "maps.npy"))


@pytest.mark.parametrize("readout", ["y", "x", "z"])
def test_volume_becomes_2d_slices_along_its_full_axis(saved, readout):
    names, shape = ("z", "coil", "y", "x"), (6, 3, 8, 10)
    image = np.random.default_rng(0).random(shape) + 1
    kspace = centred_fft(torch.from_numpy(image.astype(np.complex64)), (0, 2, 3)).numpy()
    at = names.index(readout)
    mask = np.random.default_rng(1).random(
        [1 if name in {readout, "coil"} else n for name, n in zip(names, shape, strict=True)]
    )
    kspace *= mask < 0.7
    scan = read(saved(kspace), axes="z,coil,y,x")
    hybrid = centred_ifft(torch.from_numpy(kspace), (at,)).numpy()
    expected = np.moveaxis(hybrid, at, 0)
    expected = expected if readout == "z" else expected.swapaxes(1, 2)
    assert len(scan.measurements) == shape[at]
    for index in range(shape[at]):
        assert np.allclose(scan.measurements[index].numpy(), expected[index], atol=1e-6)
    assert torch.equal(
        scan.acquisition.mask.expand(1, *expected.shape[2:])[0], torch.from_numpy((expected[0] != 0).any(0))
    )
    assert any(f"fully sampled axis {readout}" in note for note in scan.notes)


def test_volumes_that_cannot_be_split(saved):
    kspace = kspace_of(6, 8, 10) * (np.random.default_rng(0).random((6, 8, 10)) < 0.5)
    with pytest.raises(InputError, match="undersampled along z, y and x"):
        read(saved(kspace), axes="z,y,x")
    with pytest.raises(InputError, match="--mask and --calibration go with 2-D"):
        read(saved(kspace_of(6, 8, 10)), axes="z,y,x", mask=saved(np.ones(10), "mask.npy"))
    kspace = kspace_of(6, 8, 10)
    kspace[2, 3, 4] = np.nan
    with pytest.raises(NumericalError, match="1 of 480 samples"):
        read(saved(kspace), axes="z,y,x")
    assert any("replaced by 0" in note for note in read(saved(kspace), axes="z,y,x", nonfinite="zero").notes)


def test_several_arrays_ask_for_a_key(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.ones((3, 3)), second=np.ones((4, 4)), scalar=1.0, words="text")
    with pytest.raises(InputError, match=r"--key: first \(3, 3\), second \(4, 4\)"):
        load_array(tmp_path / "a.npz")
    assert load_array(tmp_path / "a.npz", "second").shape == (4, 4)
    np.savez(tmp_path / "b.npz", only=np.ones((3, 3)), scalar=1.0)
    assert load_array(tmp_path / "b.npz").shape == (3, 3)


def test_key_of_a_nameless_array(saved):
    with pytest.raises(InputError, match="leave --key out"):
        load_array(saved(np.ones(3)), "kspace")


# -- hostile files ---------------------------------------------------------------------------------


def test_pickles_are_refused(tmp_path, saved):
    path = saved(np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="pickled Python objects"):
        load_array(path)
    np.savez(tmp_path / "a.npz", a=np.array([None], dtype=object))
    with pytest.raises(InputError, match="pickled Python objects"):
        load_array(tmp_path / "a.npz")


def npy_header(text, version=1):
    body = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(body).to_bytes(2 if version == 1 else 4, "little") + body


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n") + bytes(64),
            "64 follow",
        ),
        (npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (-4, -2), }\n") + bytes(64), "negative"),
        (npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (4,), }\n") + bytes(31), "31 follow"),
        (npy_header("{'descr': '<U4', 'fortran_order': False, 'shape': (4,), }\n") + bytes(64), "expected numbers"),
        (npy_header("__import__('os')\n"), "damaged .npy header"),
        (npy_header("(" * 5000), "damaged .npy header"),
        (npy_header("{}", 3), "damaged .npy header"),
        (npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': [4]}"), "no shape"),
        (npy_header("{'descr': [('a', 'nonsense')], 'fortran_order': False, 'shape': (4,)}"), "damaged .npy header"),
        (b"\x93NUMPY", "damaged .npy header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "claims 4294967295 bytes"),
        (b"PK\x03\x04" + bytes(30), "damaged .npz"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "corrupt|could not be read"),
        (
            b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\x0e\x00\x00\x00\xff\xff\xff\xff",
            "damaged MAT|no numeric",
        ),
        (b"MATLAB 4", "-v7"),
        (b"hello", "not an array file"),
    ],
)
def test_damaged_files(tmp_path, content, says):
    path = tmp_path / "k.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_array(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_array(tmp_path / "none.npy")


def test_bomb_is_refused_small_masks_are_not(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(20 << 20, np.uint8))
    with pytest.raises(InputError, match="decompression bomb"):
        load_array(tmp_path / "bomb.npz")
    np.savez_compressed(tmp_path / "mask.npz", a=np.zeros((640, 368), bool))
    assert load_array(tmp_path / "mask.npz").shape == (640, 368)


def test_member_that_lies_about_its_size(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.ones((4, 4)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue()[:-8])
    with pytest.raises(InputError, match="declares"):
        load_array(tmp_path / "a.npz")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path, data):
    kind = data.draw(st.sampled_from(["npy", "npz", "mat"]))
    path = tmp_path / f"seed.{kind}"
    if not path.exists():
        write_as(kind, path, kspace_of(4, 5))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    mutant = tmp_path / "mutant"
    mutant.write_bytes(content)
    try:
        array = load_array(mutant, max_bytes=1 << 24)
    except InputError:
        return
    assert array.nbytes <= 1 << 24


def test_grappa_phantom(shared_data):
    folder = shared_data / "mri_kspace/grappa_phantom_16ch_R2"
    scan = read(folder / "kdata.mat", axes="y,x,coil", calibration=folder / "refscan.mat")
    lines = (scan.measurements[0] != 0).any(0).any(0).nonzero().flatten()
    assert scan.measurements.shape == (16, 64, 64)
    assert lines.tolist() == list(range(1, 62, 2))
    assert scan.acquisition.calibration[0].shape == (16, 55, 24)
