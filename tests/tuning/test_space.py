"""Ranges as distributions, parameters as values."""

from tests.tuning.studies import RANGES, recipe_of
from tfmmrank.tuning.space import distributions, own_params, values_of


def test_distributions():
    drawn = distributions(recipe_of({**RANGES, "train.weight_decay": {"low": 0, "high": 1, "step": 0.25}}).tune)
    rate, size, fusion, decay = drawn.values()
    assert (rate.low, rate.high, rate.log, rate.step) == (1e-4, 1.0, True, None)
    assert (type(size).__name__, size.low, size.high, size.step) == ("IntDistribution", 2, 8, 2)
    assert fusion.choices == ("sum", '{"kind": "mean"}', '{"kind": "gated"}')
    assert (type(decay).__name__, decay.step) == ("FloatDistribution", 0.25)


def test_parameters_become_values():
    ranges = recipe_of({**RANGES, "train.weight_decay": {"low": 0.0, "high": 0.5, "step": 0.1}}).tune
    params = {"model.fusion": '{"kind": "mean"}', "train.batch_size": 6, "train.weight_decay": 0.1 + 2 * 0.1}
    assert values_of(ranges, params) == {
        "model.fusion": {"kind": "mean"}, "train.batch_size": 6, "train.weight_decay": 0.3,
    }  # fmt: skip


def test_the_recipes_own_values_are_parameters_where_they_are_searched():
    assert own_params(recipe_of()) == {"train.learning_rate": 0.001, "train.batch_size": 4, "model.fusion": "sum"}
    assert own_params(recipe_of(learning_rate=2.0, batch_size=5)) == {"model.fusion": "sum"}
    by_choice = {"train.clip_norm": {"choices": [None, 1.0]}, "model.cross.deep": {"choices": [[8], [32]]}}
    assert own_params(recipe_of(by_choice)) == {"train.clip_norm": "1.0"}
    assert own_params(recipe_of({"model.towers.query.max_tokens": {"low": 4, "high": 8}})) == {}  # the class's default
