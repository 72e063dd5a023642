"""One trial, trained in earnest."""

import json

import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop
from tests.tuning.studies import recipe_of
from tfmmrank.schema import RecipeError
from tfmmrank.training import make_strategy
from tfmmrank.tuning import tune
from tfmmrank.tuning.trial import TrialError, check_options, train_trial

# Quick to trace.
SMALL = {
    "dim": 8,
    "towers": {"behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"], "dropout": 0.2}},
    "fusion": {"kind": "sum"},
    "cross": {"layers": 0, "deep": [8]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory, all_uncompiled):
    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=12)


def train(recipe, shop, run, told=lambda epoch, value, last: None):
    return train_trial(recipe, shop, run, make_strategy(), told)


def test_a_trial_is_pruned_in_the_middle_of_training(shop, tmp_path):
    import optuna

    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 0

    ranges = {"train.learning_rate": {"low": 1e-3, "high": 1e-2}}
    found = tune(recipe_of(ranges, SMALL, epochs=2), shop, tmp_path, trials=2, pruner=Second(), progress=False)
    assert [(trial.state, trial.epochs) for trial in found.trials] == [("complete", 2), ("pruned", 1)]
    assert (tmp_path / "trials" / "0000" / "ranker").exists()
    assert not (tmp_path / "trials" / "0001" / "ranker").exists()


def test_a_trial_tells_its_epochs(shop, tmp_path):
    told = []
    recipe = recipe_of({}, SMALL, epochs=9, patience=1, learning_rate=1e-30)
    values = train(recipe, shop, tmp_path, lambda *epoch: told.append(epoch))
    assert told == [(0, values[0], False), (1, values[1], True)]  # early stopping's last
    assert json.loads((tmp_path / "history.json").read_text())["val_ndcg@10"] == values


def test_a_loss_that_is_not_finite_is_the_trials_failure(shop, tmp_path):
    with pytest.raises(TrialError, match=r"^the training loss became nan in epoch \d; lower train.learning_rate"):
        train(recipe_of({}, SMALL, learning_rate=1e30, clip_norm=None), shop, tmp_path)


def test_parts_that_do_not_fit_together_are_the_trials_failure(shop, tmp_path):
    recipe = recipe_of({}, SMALL).with_values({"model.fusion": {"kind": "attention", "heads": 3}})
    with pytest.raises(TrialError, match="model.fusion: .*heads"):
        train(recipe, shop, tmp_path)


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        (
            {"model.towers.query.dropuot": {"low": 0.0, "high": 0.5}},
            'tune.model.towers.query.dropuot: "text" has no option "dropuot"; did you mean "dropout"?; options: ',
        ),
        (
            {"model.towers.query.max_tokens": {"low": 1.0, "high": 2.0}},
            "tune.model.towers.query.max_tokens: max_tokens is 1.0; expected a whole number",
        ),
        ({"model.fusion.heads": {"low": 1, "high": 2}}, '"sum" has no option "heads"; options: '),
        (
            {"model.fusion.kind": {"choices": ["sum", "gatde"]}},
            'fusion.kind: unknown fusion "gatde"; did you mean "gated',
        ),
        ({"model.towers.query.kind": {"choices": ["text", "txet"]}}, 'kind: unknown tower "txet"; did you mean "text"'),
    ],
)
def test_options_that_only_classes_know(tune, says):
    with pytest.raises(RecipeError, match=says.replace("?;", r"\?;")):
        check_options(recipe_of(tune))


def test_an_option_may_be_one_kinds_alone():
    check_options(
        recipe_of({"model.fusion.kind": {"choices": ["sum", "attention"]}, "model.fusion.heads": {"choices": [2, 4]}})
    )
    check_options(recipe_of({"model.towers.query.columns": {"choices": ["query", ["query"] * 2]}}))
