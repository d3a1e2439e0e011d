import logging

import numpy as np
import pytest

from medrecon.errors import InputError, NumericalError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.images import load_image
from medrecon.io.writers import write_image


@pytest.fixture
def image():
    array = np.arange(2 * 6 * 5, dtype=np.float32).reshape(2, 6, 5)
    return Image(array, Geometry(np.diag([-2.0, -3, 4, 1])), "CT")


def test_an_image_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
def test_what_is_no_image(tmp_path, content):
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"known format|empty"):
        load_image(tmp_path / "a.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npz", ".h5"])
def test_content_decides_not_the_name(image, tmp_path, suffix):
    path = write_image(image, tmp_path / f"a{suffix}")[0].rename(tmp_path / "scan.dat")
    back = load_image(path)
    np.testing.assert_array_equal(back.array, image.array)
    assert back.modality == "CT"


def test_a_dicom_folder_and_its_files(image, tmp_path):
    folder = write_image(image, tmp_path / "a.dcm")[0]
    np.testing.assert_array_equal(load_image(folder).array, image.array)
    np.testing.assert_array_equal(load_image(folder / "a_0002.dcm").array, image.array[1:])


def test_the_modality_can_be_told_where_the_file_does_not(image, tmp_path):
    np.save(tmp_path / "a.npy", image.array)
    assert load_image(tmp_path / "a.npy").modality == "OT"
    assert load_image(tmp_path / "a.npy", modality="MR").modality == "MR"
    assert load_image(write_image(image, tmp_path / "b.nii")[0], modality="MR").modality == "CT"


def test_nan_in_the_image(image, tmp_path):
    array = image.array.copy()
    array[1, 2, 3] = np.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(NumericalError, match="slice 2 of 2 has 1 values"):
        load_image(tmp_path / "a.npy")


def test_assumptions_are_logged(image, tmp_path, caplog):
    np.save(tmp_path / "a.npy", image.array)
    with caplog.at_level(logging.WARNING):
        load_image(tmp_path / "a.npy")
    assert "no spacing or orientation" in caplog.text


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npz", ".dcm", ".png", ".h5"])
def test_truncated_files_are_refused(image, tmp_path, suffix):
    whole = write_image(Image(image.array[:1], image.geometry, "CT"), tmp_path / f"a{suffix}")[0]
    data = whole.read_bytes()
    for share in (0.3, 0.6, 0.9):
        whole.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError):
            load_image(whole)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npz", ".png", ".npy"])
def test_mutations_give_a_result_or_a_named_error(image, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, image.array)
    else:
        write_image(image, path, sidecar=False)
    sound, generator = path.read_bytes(), np.random.default_rng(3)
    for _ in range(80):
        damaged = bytearray(sound)
        for at in generator.integers(0, len(sound), generator.integers(1, 9)):
            damaged[at] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            load_image(path, max_bytes=1 << 24)
        except (InputError, NumericalError):
            continue
