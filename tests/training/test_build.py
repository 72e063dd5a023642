"""From a recipe to towers: what is said of options that a class does not take."""

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import RECIPE_MODEL, MemoryShop, make_recipe
from tfmmrank.ranker import Ranker
from tfmmrank.schema import RecipeError
from tfmmrank.training import build_ranker, make_optimizer
from tfmmrank.training.build import _is_of, _make
from tfmmrank.training.fit import OPTIMIZERS


def with_options(part: str, **options):
    model = deepcopy(RECIPE_MODEL)
    place = model["fusion"] if part == "fusion" else model["towers"][part]
    place.update(options)
    return make_recipe(model)


@pytest.mark.parametrize(
    ("part", "options", "says"),
    [
        ("image", {"size": "big"}, "model.towers.image: size is 'big'; expected a whole number"),
        ("query", {"layers": "two"}, "model.towers.query: layers is 'two'; expected a whole number"),
        ("query", {"dropout": "1e-1"}, "model.towers.query: dropout is '1e-1'; expected a number"),
        ("query", {"pooled": 1}, "model.towers.query: pooled is 1; expected true or false"),
        ("image", {"tokens": 5}, "model.towers.image: tokens is 5; expected text"),
        ("attributes", {"hidden": 64}, r"model.towers.attributes: hidden is 64; expected a list of whole numbers"),
        ("attributes", {"hash_buckets": 1.5}, "hash_buckets is 1.5; expected a whole number or null"),
        ("attributes", {"categorical": "brand"}, "categorical is 'brand'; expected a list of text"),
        ("fusion", {"dropout": [0.1]}, r"model.fusion: dropout is \[0.1\]; expected a number"),
        (
            "image",
            {"sise": 8},
            r'model.towers.image: "image" has no option "sise"; did you mean "size"\?; options: aspects, ',
        ),
    ],
)
def test_options_of_the_wrong_type_are_named(part, options, says):
    with pytest.raises(RecipeError, match=says):
        build_ranker(with_options(part, **options))


def test_options_of_the_right_type():
    build_ranker(with_options("attributes", hidden=[], dropout=0, hash_buckets=None))


@pytest.mark.parametrize(
    ("value", "expected"),
    [((1, 2), tuple[int, int]), ([1, 2], tuple[int, int]), (object(), int), (3, object), ([1], "nowhere")],
)
def test_what_yaml_does_not_know_is_left_to_the_class(value, expected):
    assert _is_of(value, expected)


class WithoutTypes:
    def __init__(self, scale=1):
        self.scale = scale


class WithUnknownTypes:
    def __init__(self, scale: "NowhereToBeFound" = 1):  # noqa: F821
        self.scale = scale


@pytest.mark.parametrize("cls", [WithoutTypes, WithUnknownTypes])
def test_a_class_without_types_takes_anything(cls):
    assert _make("model.fusion", {"mine": cls}, "mine", {"scale": "x"}).scale == "x"


def test_the_fusion_of_the_recipes_page(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    exec(compile(example, "docs/recipes.md", "exec"), {"__name__": "my_towers"})
    recipe = make_recipe({**RECIPE_MODEL, "fusion": {"kind": "first_tokens", "activation": "relu"}})
    ranker = build_ranker(recipe, MemoryShop(tmp_path, encode_picture, lists=4))
    ranker.save_ranker(tmp_path / "ranker")
    again = Ranker.load_ranker(tmp_path / "ranker")
    assert again.fusion.activation == "relu"
    (weights, *_), (saved, *_) = ranker.fusion.get_weights(), again.fusion.get_weights()
    # Four item and slot towers, by themselves and times one query tower, 32 wide.
    assert weights.shape == (8 * 32, 32)
    np.testing.assert_array_equal(weights, saved)


def test_an_unknown_optimizer_has_its_nearest_name():
    says = 'train.optimizer: unknown optimizer "adamm"; did you mean "adam"\\?; known: adadelta, '
    with pytest.raises(ValueError, match=says):
        make_optimizer(make_recipe(optimizer="adamm").train)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_that_the_message_names_exist(name):
    assert type(make_optimizer(make_recipe(optimizer=name).train)).__name__.lower() == name
