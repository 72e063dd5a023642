"""Ranges of a recipe's options: what is accepted, what errors say, which values there are."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.test_schema import GOOD, changed, refuse
from tfmmrank.ranges import Range, label, value_at, with_value
from tfmmrank.schema import Recipe

LEARNING_RATE = {"low": 1e-4, "high": 0.1, "log": True}


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        ({"train.learning_rat": LEARNING_RATE}, 'train.learning_rat: no such key; did you mean "train.learning_rate"?'),
        ({"learning_rate": LEARNING_RATE}, 'learning_rate: no such key; did you mean "train.learning_rate"?'),
        ({"train.dropout": {"low": 0.0, "high": 0.5}}, 'no such key; did you mean "model.cross.dropout"?'),
        ({"zzz": LEARNING_RATE}, "zzz: no such key; expected a key inside model or train, like train.learning_rate"),
        (
            {"train": {"epochs": {"low": 1, "high": 2}}},
            'stands in a mapping of its own; write the dotted key, "train.e',
        ),
        ({"train.epochs": {"low": 1, "hihg": 2}}, 'train.epochs.hihg: unknown key; did you mean "high"?'),
        ({"train.epochs": 3}, "train.epochs: expected a mapping with the keys low, high, log, step, choices, got 3"),
        ({"train.epochs": {"low": 3}}, 'train.epochs: expected "low" and "high", or "choices"'),
        ({"train.epochs": {"low": 3, "high": 3}}, "train.epochs: low is 3 and high is 3; expected low below high"),
        ({"train.epochs": {"low": 3, "high": "many"}}, "train.epochs.high: expected a number, got 'many'"),
        ({"train.epochs": {"low": True, "high": 3}}, "train.epochs.low: expected a number, got True"),
        ({"train.epochs": {"low": 1, "high": float("inf")}}, "train.epochs.high: expected a number, got inf"),
        ({"train.epochs": {"low": 1, "high": 9, "log": True, "step": 2}}, "step is 2 and log is true; expected one"),
        ({"train.epochs": {"low": 1, "high": 4, "step": 2}}, "steps of 2 from 1 do not meet high, 4"),
        ({"train.epochs": {"low": 1, "high": 4, "step": -1}}, "step is -1; expected more than 0"),
        ({"train.epochs": {"low": 1.0, "high": 4}}, "with 2.145898, train.epochs: expected a valid integer"),
        ({"train.epochs": {"low": -1, "high": 4}}, "with -1, train.epochs: expected greater than 0, got -1"),
        ({"train.weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, "low is 0.0 and log is true; expected low ab"),
        ({"model.cross.dropout": {"low": 0.1, "high": 1.5}}, "with 1.5, model.cross.dropout: expected less than 1, g"),
        ({"train.loss": {"choices": ["softmax_loss", 3]}}, "with 3, train.loss: expected a valid string, got 3"),
        ({"train.loss": {"choices": ["softmax_loss"]}}, "train.loss: choices: expected at least two, got 1"),
        ({"train.loss": {"choices": ["a", "a"]}}, "train.loss: choices: a stands there twice; expected each once"),
        ({"train.loss": {"choices": ["a", "b"], "low": 1}}, "train.loss: has choices, so remove low"),
        ({"train.seed": {"low": 0, "high": 9}}, "train.seed: is the same in all trials"),
        ({"data.on_bad_row": {"choices": ["fail", "skip"]}}, "the dataset is prepared before; expected a key inside"),
        (
            {"model.towers.titel.dropout": {"low": 0.0, "high": 0.5}},
            'model.towers.titel.dropout: there is no tower "titel"; did you mean "title"?; towers: title',
        ),
        (
            {"model.fusion": {"choices": ["mean", "sum"]}, "model.fusion.dropout": {"low": 0.0, "high": 0.5}},
            'model.fusion.dropout: stands inside "model.fusion", which is tuned too; write it into each of its choices',
        ),
        (
            {"model.towers.title.max_tokens.x": {"choices": [1, 2]}},
            "with 1, model.towers.title.max_tokens.x: max_tokens is 9, which has no keys",
        ),
        ([1], "tune: expected a mapping, got [1]"),
    ],
)
def test_bad_ranges_name_key_value_and_expectation(tune, says):
    refuse({**changed("train.epochs", 5), "tune": tune}, "tune", says)


def test_a_recipe_of_ranges():
    tune = {
        "train.learning_rate": {"low": "1e-4", "high": 1e-1, "log": True},  # YAML 1.1 reads 1e-4 as text
        "train.loss_options.temperature": {"low": 0.5, "high": 2.0},
        "model.cross.deep": {"choices": [[], [32], [64, 32]]},
        "model.towers.title": {"choices": [{"kind": "text", "columns": ["title"]}, {"kind": "x", "columns": "title"}]},
        "model.fusion": {"choices": ["mean", {"kind": "attention", "heads": 2}]},
    }
    recipe = Recipe.from_dict({**changed("train.epochs", 5), "tune": tune})
    assert recipe.tune["train.learning_rate"].low == 1e-4
    other = recipe.with_values({"model.fusion": "mean", "train.learning_rate": 0.01, "model.cross.deep": []})
    assert (other.model.fusion.kind, other.train.learning_rate, other.model.cross.deep) == ("mean", 0.01, [])
    assert (other.train.epochs, other.tune, other.root) == (5, {}, recipe.root)
    assert recipe.with_values({}).model == recipe.model
    assert set(yaml.safe_load(recipe.to_yaml())) == {"data", "model", "train"}


def test_the_example_of_the_recipes_page():
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text("utf-8")
    model, tune = (
        yaml.safe_load(
            next(text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if text.startswith(part))
        )
        for part in ("model:", "tune:")
    )
    recipe = Recipe.from_dict({"data": GOOD["data"], **model, **tune})
    assert recipe.tune["model.towers.title.max_tokens"].whole
    assert not recipe.tune["model.cross.dropout"].whole


def test_whole_numbers_stay_whole():
    assert Range(low=1, high=5).whole
    assert Range(low=16, high=64, step=16).whole
    assert not Range(low=1.0, high=5).whole
    assert not Range(low=1, high=2, step=0.5).whole
    assert not Range(choices=[1, 2]).whole


def test_samples_are_ends_and_a_fraction():
    assert Range(low=1, high=5).samples() == [1, 5]
    low, between, high = Range(low=0.0, high=1.0).samples()
    assert (low, high) == (0.0, 1.0)
    assert 0 < between < 1
    assert Range(low=0.0, high=1.0, step=0.25).samples() == [0.0, 0.25, 1.0]
    assert Range(choices=["a", None]).samples() == ["a", None]


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({"low": 1, "high": 5}, [1, 5, 3.0], [0, 6, 2.5, True, "3", None]),
        ({"low": 1, "high": 7, "step": 3}, [1, 4, 7], [2, 3]),
        ({"low": 0.1, "high": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7], [0.2, 0.31]),
        ({"low": 0.1, "high": 0.7}, [0.1, 0.123], [0.8]),
        ({"choices": [1, 2]}, [], [1]),
    ],
)
def test_holds(options, inside, outside):
    values = Range(**options)
    assert all(values.holds(value) for value in inside)
    assert not any(values.holds(value) for value in outside)


def test_steps_without_what_binary_fractions_add():
    values = Range(low=0.1, high=0.7, step=0.1)
    assert 0.1 + 2 * 0.1 != 0.3
    assert values.on_grid(0.1 + 2 * 0.1) == 0.3
    assert Range(low=0.0, high=1.0).on_grid(0.123456789) == 0.123456789
    assert isinstance(Range(low=1, high=5).on_grid(3.0), int)


def test_labels():
    choices = ["gated", 4, None, {"kind": "attention"}, [1, 2], True, "帽子"]
    assert [label(choice) for choice in choices] == [
        "gated", "4", "null", '{"kind": "attention"}', "[1, 2]", "true", "帽子",
    ]  # fmt: skip
    with pytest.raises(ValidationError, match="4 stands there twice"):
        Range(choices=[4, "4"])  # trials.csv could not tell them apart


def test_dotted_keys():
    content = {"a": {"b": 1}, "c": 2}
    assert value_at(content, "a.b") == 1
    assert value_at(content, "a.x.y") is None
    assert value_at(content, "c.x") is None
    assert with_value(content, "a.x.y", 3) == {"a": {"b": 1, "x": {"y": 3}}, "c": 2}
    assert content == {"a": {"b": 1}, "c": 2}
    with pytest.raises(ValueError, match="c is 2, which has no keys"):
        with_value(content, "c.x", 3)
