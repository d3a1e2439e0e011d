"""MAT version 5 against scipy's writer and reader; damaged files are refused and never crash."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medrecon.errors import InputError
from medrecon.io.mat5 import list_mat5, read_mat5

scipy_io = pytest.importorskip("scipy.io")


def save(path, contents, **options):
    scipy_io.savemat(path, contents, appendmat=False, **options)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "u1", "i2", "u4", "i8", "bool"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 4), (40, 1, 30, 2)])
def test_what_scipy_writes_is_read(tmp_path, compressed, dtype, shape):
    rng = np.random.default_rng(0)
    array = (100 * rng.random(shape)).astype(dtype)
    if array.dtype.kind == "c":
        array = array + 1j * rng.random(shape).astype(array.real.dtype)
    path = save(tmp_path / "a.mat", {"x": np.ones(3), "a_long_name_of_a_variable": array}, do_compression=compressed)
    variable = list_mat5(path)["a_long_name_of_a_variable"]
    assert variable.shape == shape
    assert variable.nbytes == array.nbytes
    result = read_mat5(path, variable)
    assert result.dtype == array.dtype
    assert np.array_equal(result, array)


def test_other_kinds_are_passed_over(tmp_path):
    contents = {"k": np.eye(3), "text": "hello", "cell": np.array([1, "a"], dtype=object), "struct": {"a": 1}}
    contents["empty"] = np.zeros((0, 3))
    path = save(tmp_path / "a.mat", contents)
    assert list(list_mat5(path)) == ["k"]


def big_endian(values, stored):
    """A file as a big-endian machine writes it, doubles stored as small integers."""

    def element(kind, data):
        return np.array([kind, len(data)], ">u4").tobytes() + data + bytes(-len(data) % 8)

    body = element(6, np.array([6, 0], ">u4").tobytes())
    body += element(5, np.array(values.shape, ">i4").tobytes())
    body += np.array([(1 << 16) | 1], ">u4").tobytes() + b"k\0\0\0"  # small element
    body += element(4, values.astype(stored).tobytes(order="F"))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, body)


def test_big_endian_with_narrow_storage(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    (tmp_path / "a.mat").write_bytes(big_endian(values, ">u2"))
    assert np.array_equal(scipy_io.loadmat(tmp_path / "a.mat")["k"], values)
    result = read_mat5(tmp_path / "a.mat", list_mat5(tmp_path / "a.mat")["k"])
    assert result.dtype == np.float64
    assert np.array_equal(result, values)


@pytest.mark.parametrize("size", [140, 170, 200, 300])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_files(tmp_path, size, compressed):
    path = save(tmp_path / "a.mat", {"k": np.random.default_rng(0).random((8, 9)) + 1j}, do_compression=compressed)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="truncated"):
        list_mat5(path)


def test_values_that_do_not_match_the_sizes(tmp_path):
    path = tmp_path / "a.mat"
    content = bytearray(big_endian(np.arange(6.0).reshape(2, 3), ">u2"))
    at = content.index(np.array([2, 3], ">i4").tobytes())
    content[at : at + 8] = np.array([200, 300], ">i4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="do not match its sizes"):
        read_mat5(path, list_mat5(path)["k"])
    content[at : at + 8] = np.array([-2, 3], ">i4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match="negative sizes"):
        list_mat5(path)


def test_element_that_inflates_too_far(tmp_path):
    path = tmp_path / "a.mat"
    save(path, {"k": np.zeros((1000, 1000))}, do_compression=True)
    variable = list_mat5(path)["k"]
    lying = type(variable)(**{**variable.__dict__, "shape": (10, 10)})
    with pytest.raises(InputError, match="inflates to more than its sizes say"):
        read_mat5(path, lying)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.lists(st.tuples(st.integers(100, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_files_are_read_or_refused(tmp_path, compressed, changes):
    path = tmp_path / f"{compressed}.mat"
    if not path.exists():
        save(path, {"k": np.random.default_rng(0).random((8, 9)) + 1j, "m": np.eye(3)}, do_compression=compressed)
    content = bytearray(path.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    mutant = tmp_path / "mutant"
    mutant.write_bytes(content)
    try:
        for variable in list_mat5(mutant).values():
            if variable.nbytes < 1 << 20:
                assert read_mat5(mutant, variable).nbytes == variable.nbytes
    except InputError:
        pass
