from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PillowImage

from medrecon.errors import UsageError
from medrecon.io.geometry import Geometry
from medrecon.io.image import Image
from medrecon.io.writers.png import contact_sheet, write_png


def stack(shape, spacing=(1.0, 1.0, 1.0), value=1.0):
    return Image(np.full(shape, value, dtype=np.float32), Geometry.from_spacing(spacing, shape))


def opened(path):
    with PillowImage.open(path) as picture:
        picture.load()
        return picture.size, np.asarray(picture)


def test_a_single_slice_fills_the_picture_without_a_number(tmp_path):
    image = stack((1, 200, 320))
    image.array[0, :, :160] = 0
    write_png(image, tmp_path / "a.png")
    size, pixels = opened(tmp_path / "a.png")
    assert size == (328, 208)
    assert (pixels[4:204, 4:164] == 0).all()
    assert (pixels[4:204, 164:324] == 255).all()


def test_pixels_are_square_millimetres(tmp_path):
    write_png(stack((1, 100, 200), spacing=(1.0, 3.0, 1.0)), tmp_path / "a.png")
    (width, height), _ = opened(tmp_path / "a.png")
    assert (width - 8, height - 8) == (200, 300)


def test_one_window_for_all_slices(tmp_path):
    image = stack((2, 200, 200))
    image.array[1] = 0.5
    write_png(image, tmp_path / "a.png")
    _, pixels = opened(tmp_path / "a.png")
    assert pixels[100, 104] == 255
    assert pixels[100, 308] == 128


def test_many_slices_stay_a_picture(tmp_path):
    write_png(stack((400, 256, 256)), tmp_path / "a.png")
    size, _ = opened(tmp_path / "a.png")
    assert max(size) <= 4096
    assert min(size) > 3000


def test_columns_and_their_difference(mr, tmp_path):
    other = replace(mr, array=mr.array * 0.98)
    images = {"zero-filled": other, "reconstruction": mr, "reference": mr}
    contact_sheet(images, tmp_path / "a.png", difference=("reconstruction", "reference"))
    size, pixels = opened(tmp_path / "a.png")
    tile = (size[0] - 4) // 4 - 4
    assert (size[0] - 4) % 4 == 0
    assert (pixels[26:, -tile - 4 : -4].max(axis=1) <= 40).all()  # equal images: nothing but black and gaps
    contact_sheet(images, tmp_path / "a.png", difference=("zero-filled", "reference"), overwrite=True)
    _, pixels = opened(tmp_path / "a.png")
    assert 15 < pixels[26:, -tile - 4 : -4].max() <= 45  # 2 % of the window, five times brighter


def test_slices_can_be_chosen(mr, tmp_path):
    contact_sheet({"one": mr}, tmp_path / "a.png", slices=[2])
    contact_sheet({"one": mr}, tmp_path / "b.png")
    assert opened(tmp_path / "a.png")[0][1] < opened(tmp_path / "b.png")[0][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "at least one image"),
        ({"slices": [3]}, "expected 0 to 2"),
        ({"difference": ("one", "two")}, "difference of 'two'"),
    ],
)
def test_wrong_calls(mr, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        contact_sheet(**({"images": {"one": mr}, "path": tmp_path / "a.png"} | change))
    assert list(tmp_path.iterdir()) == []


def test_grids_must_agree(mr, tmp_path):
    with pytest.raises(UsageError, match="one grid"):
        contact_sheet({"a": mr, "b": stack((1, 3, 3))}, tmp_path / "a.png")


def test_existing_sheets_stay(mr, tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(UsageError, match="--overwrite"):
        contact_sheet({"a": mr}, tmp_path / "a.png")
