"""Recipe cards: all of ours draw, and what is wrong in one's own is named."""

import pytest
import torch

from medrecon.errors import InputError, UsageError
from medrecon.operators import BlockCompressedSensing, CartesianMRI, Inpainting, LinearOperator, register_operator
from medrecon.operators.recipes import Recipe, available_recipes, load_recipe
from medrecon.operators.samplers import effective_acceleration

NAMES = [
    "block-cs-10",
    "block-cs-25",
    "block-cs-50",
    "ct-fan-360",
    "ct-limited-120",
    "ct-parallel-180",
    "ct-parallel-30",
    "ct-parallel-60",
    "ct-parallel-720",
    "inpainting-50",
    "mri-cartesian-4x",
    "mri-cartesian-8x",
    "mri-poisson-8x",
    "mri-radial-8x",
    "mri-random-4x",
    "mri-singlecoil-4x",
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_all_that_ship():
    recipes = available_recipes()
    assert sorted(recipes) == NAMES
    assert all(recipe.name == name for name, recipe in recipes.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 48), (33, 47)])
def test_draws_an_operator_for_any_size(name, shape):
    recipe = load_recipe(name)
    operator = recipe.draw(shape, seeded())
    assert operator.image_shape == (1, *shape)
    image = torch.randn(1, 1, *shape, dtype=operator.image_dtype, generator=seeded())
    first, second, third = (
        drawn(image) for drawn in (operator, recipe.draw(shape, seeded()), recipe.draw(shape, seeded(1)))
    )
    assert torch.equal(first, second)
    assert torch.allclose(first, third) == name.startswith("ct-")  # a scanner's geometry is not drawn


@pytest.mark.parametrize(("name", "acceleration"), [(n, int(n[-2])) for n in NAMES if n.startswith("mri")])
def test_acceleration_is_that_of_the_name(name, acceleration):
    operator = load_recipe(name).draw((320, 320), seeded())
    assert isinstance(operator, CartesianMRI)
    assert operator.has_maps == (name != "mri-singlecoil-4x")
    assert effective_acceleration(operator.mask) == pytest.approx(acceleration, rel=0.1)


def test_operators_of_the_other_kinds():
    inpainting = load_recipe("inpainting-50").draw((20, 30), seeded())
    assert isinstance(inpainting, Inpainting)
    assert int(inpainting.mask.sum()) == 300
    block = load_recipe("block-cs-25").draw((32, 64), seeded())
    assert isinstance(block, BlockCompressedSensing)
    assert block.data_shape == (1, 512)
    assert block.seed == 2025


def test_channels_and_line_masks_of_inpainting():
    card = {
        "name": "lines",
        "description": "d",
        "operator": "inpainting",
        "parameters": {"channels": 3, "dtype": "complex64"},
        "mask": {"sampler": "variable-density-lines", "acceleration": 2},
    }
    operator = Recipe.from_dict(card, "card").draw((20, 30), seeded())
    assert operator.image_shape == (3, 20, 30)
    assert operator.image_dtype == torch.complex64


def test_block_compressed_sensing_of_complex_images():
    parameters = {"ratio": 0.25, "block_size": 8, "dtype": "complex64"}
    card = {"name": "cs", "description": "d", "operator": "block-compressed-sensing", "parameters": parameters}
    operator = Recipe.from_dict(card, "card").draw((20, 30), seeded())
    assert operator.image_dtype == operator.data_dtype == torch.complex64


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


GOOD = "name: mine\ndescription: d\noperator: cartesian-mri\nmask: {sampler: radial, acceleration: 4}\n"


@pytest.mark.parametrize("as_text", [True, False])
def test_a_card_of_ones_own(tmp_path, as_text):
    path = write(tmp_path, GOOD + "coils: {count: 3}\n")
    operator = load_recipe(str(path) if as_text else path).draw((32, 32), seeded())
    assert operator.data_shape == (3, 32, 32)


def test_misspelt_name():
    with pytest.raises(UsageError, match="did you mean 'mri-cartesian-4x'"):
        load_recipe("mri-cartesian-4")
    with pytest.raises(UsageError, match="known: block-cs-10"):
        load_recipe("zzz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "coil: {count: 3}\n", "unknown key 'coil'; did you mean 'coils'"),
        (GOOD + "coils: {number: 3}\n", "coils: unknown key 'number'"),
        (GOOD + "coils: 3\n", "expected keys and values under 'coils'"),
        (GOOD + "parameters: {ratio: 1}\n", "unknown parameter 'ratio'; it has none"),
        (GOOD.replace("radial", "radially"), "did you mean 'radial'"),
        (GOOD.replace("sampler: radial, ", ""), "name of a sampler"),
        (GOOD.replace("cartesian-mri", "cartesian-mr"), "did you mean 'cartesian-mri'"),
        (GOOD.replace("cartesian-mri", "block-compressed-sensing"), "has no mask"),
        (GOOD.replace("cartesian-mri", "inpainting") + "coils: {}\n", "coils belong to cartesian-mri"),
        (GOOD.replace("cartesian-mri", "inpainting") + "parameters: {dtype: int8}\n", "dtype must be one of"),
        (GOOD.replace("cartesian-mri", "inpainting") + "parameters: {channels: 0}\n", "at least 1"),
        (GOOD.replace("cartesian-mri", "inpainting") + "parameters: {channels: true}\n", "wrong type"),
        ("name: a\ndescription: d\noperator: cartesian-mri\n", "needs a mask"),
        ("name: a\ndescription: d\noperator: block-compressed-sensing\n", "ratio must be in"),
        (
            "name: a\ndescription: d\noperator: block-compressed-sensing\nparameters: {ratio: 0.1, block: 2}\n",
            "did you mean 'block_size'",
        ),
        ("name: 3\ndescription: d\noperator: cartesian-mri\n", "expected a text under 'name'"),
        (GOOD.replace("acceleration: 4", "acceleration: '4'"), "mine.yaml: RadialSpokes: acceleration must be"),
    ],
)
def test_what_is_wrong_in_a_card_is_named(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "expected the keys"),
        ("", "expected the keys"),
        ("a: [", "not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("# " + "a" * (1 << 20), "too many for an operator recipe"),
    ],
)
def test_files_that_are_no_cards(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(path)


def test_a_generator_elsewhere_is_refused():
    class Elsewhere:
        device = torch.device("cuda")

    with pytest.raises(UsageError, match="draws on the CPU"):
        load_recipe("block-cs-10").draw((8, 8), Elsewhere())


@register_operator("test-recipes-scale")
class Scale(LinearOperator):
    """A plug-in's operator: a mask times a number."""

    def __init__(self, shape, factor, mask):
        super().__init__((1, *shape), (1, *shape))
        self.factor = factor
        self.register_buffer("mask", mask.float()[None, None])

    def _forward(self, x):
        return self.factor * self.mask * x

    def _adjoint(self, y):
        return self._forward(y)

    @classmethod
    def from_config(cls, config, tensors):
        return cls(config["image_shape"], config["factor"], tensors["mask"])


def test_a_plug_in_is_drawn_from_its_config():
    card = {
        "name": "scale",
        "description": "d",
        "operator": "test-recipes-scale",
        "parameters": {"factor": 3.0},
        "mask": {"sampler": "radial", "acceleration": 4},
    }
    operator = Recipe.from_dict(card, "card").draw((16, 16), seeded())
    assert isinstance(operator, Scale)
    assert int((operator(torch.ones(1, 1, 16, 16)) == 3).sum()) == 64
