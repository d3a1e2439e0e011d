import struct
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage

from medrecon.errors import InputError
from medrecon.io.images import load_image

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7


def test_greyscale_keeps_its_values(tmp_path):
    for suffix in (".png", ".tif", ".bmp"):
        PillowImage.fromarray(GREY).save(tmp_path / f"a{suffix}")
        image = load_image(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(image.array[0], GREY)
        assert (image.array.dtype, image.modality, image.geometry.oriented) == (np.float32, "OT", False)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits(tmp_path, suffix):
    deep = GREY.astype(np.uint16) * 250
    PillowImage.fromarray(deep).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(load_image(tmp_path / f"a{suffix}").array[0], deep)


def test_float_tiff(tmp_path):
    PillowImage.fromarray(GREY.astype(np.float32) - 0.25).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif").array[0], GREY - 0.25)


def test_colour_becomes_luma(tmp_path):
    colour = np.zeros((1, 3, 3), np.uint8)
    colour[0, [0, 1, 2], [0, 1, 2]] = 200
    PillowImage.fromarray(colour).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_image(tmp_path / "a.png").array[0, 0], [59.8, 117.4, 22.8], rtol=1e-5)
    PillowImage.fromarray(colour).quantize().save(tmp_path / "b.png")
    assert load_image(tmp_path / "b.png").array[0, 0].argmax() == 1


def test_transparency_is_ignored(tmp_path):
    PillowImage.fromarray(np.dstack([GREY, np.zeros_like(GREY)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png").array[0], GREY)


def test_jpeg(tmp_path):
    smooth = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    PillowImage.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "a.jpg").array[0] - smooth).max() < 4


def test_pages_are_slices(tmp_path):
    pages = [PillowImage.fromarray(GREY + step) for step in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif").array, [GREY, GREY + 1, GREY + 2])


def test_pages_of_two_sizes(tmp_path):
    pages = [PillowImage.fromarray(GREY), PillowImage.fromarray(GREY[:3])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"page 2 is .7, 3., others are .7, 5."):
        load_image(tmp_path / "a.tif")


def png(width, height):
    """A header that declares more than there is."""
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    parts = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_bombs(tmp_path):
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(InputError, match="more pixels than any real picture"):
        load_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(10_000, 10_000))
    with pytest.raises(InputError, match="--max-bytes"):
        load_image(tmp_path / "a.png", max_bytes=1 << 20)


def test_less_than_declared(tmp_path):
    (tmp_path / "a.png").write_bytes(png(100, 100))
    with pytest.raises(InputError, match="damaged or truncated picture"):
        load_image(tmp_path / "a.png")
