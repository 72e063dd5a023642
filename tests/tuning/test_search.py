"""The search: that it finds, prunes, goes on after a kill, counts failures, and keeps what it should."""

import csv
import json

import pytest

pytest.importorskip("optuna", reason='tuning needs the extra: pip install "tfmmrank[tune]"')

import optuna
import yaml
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.tuning.studies import RANGES, Killed, Lists, Training, near, recipe_of
from tfmmrank.schema import Recipe, RecipeError
from tfmmrank.tuning import tune
from tfmmrank.tuning.study import open_study


@pytest.fixture(scope="module", autouse=True)
def without_waiting_for_the_disk():
    """What a power cut would lose, tests do not need."""

    def hurry(connection, _):
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Searches into ``tmp_path / "out"`` with a stand-in for training."""

    def run(value=near, recipe=None, out="out", data=None, **options):
        training = Training(value)
        monkeypatch.setattr("tfmmrank.tuning.trial.train_trial", training)
        options = {"trials": 6, "pruner": optuna.pruners.NopPruner(), "progress": False, **options}
        try:
            return tune(recipe or recipe_of(), data or Lists(), tmp_path / out, **options)
        finally:
            run.recipes = training.recipes

    return run


def test_finds_what_is_good(search):
    found = search(trials=24)
    assert len(found.trials) == 24
    assert found.best.value == max(trial.value for trial in found.trials) > 0.85
    assert found.best.values["model.fusion"] == {"kind": "gated"}
    assert 0.03 < found.best.values["train.learning_rate"] < 0.3
    assert found.importances["train.batch_size"] < 0.1 < found.importances["model.fusion"]
    assert sum(found.importances.values()) == pytest.approx(1)


def test_the_first_trial_is_the_recipe_itself(search):
    first = search(trials=1).trials[0]
    assert first.values == {"train.learning_rate": 0.001, "train.batch_size": 4, "model.fusion": "sum"}
    assert search.recipes[0].train == recipe_of().train


def test_trials_differ_in_their_options_alone(search):
    search(trials=5, recipe=recipe_of(seed=7))
    assert {recipe.train.seed for recipe in search.recipes} == {7}
    assert {recipe.train.epochs for recipe in search.recipes} == {4}
    assert len({recipe.train.learning_rate for recipe in search.recipes}) == 5


def test_one_seed_one_search(search):
    found = [search(out=out, seed=seed, trials=3) for out, seed in [("a", 1), ("b", 1), ("c", 2)]]
    values = [[trial.values for trial in outcome.trials] for outcome in found]
    assert values[0] == values[1] != values[2]


def test_the_same_call_goes_on(search, tmp_path):
    before = search(trials=4)
    after = search(trials=6)
    assert after.trials[:4] == before.trials
    assert len(after.trials) == 6
    assert len(search.recipes) == 2
    again = search(trials=3)  # fewer than there are
    assert again.trials == after.trials
    assert search.recipes == []


def killing(at):
    """``near``, but the process dies in the second epoch of the trial begun as number ``at``."""
    begun = []

    def value(recipe, epoch):
        begun.extend([1] if epoch == 0 else [])
        if len(begun) - 1 == at and epoch == 1:
            raise Killed
        return near(recipe, epoch)

    return value


@pytest.mark.parametrize(("at", "trials"), [(0, 2), (3, 13)])
def test_killed_it_tries_again_and_ends_with_so_many_trials_in_all(search, tmp_path, at, trials):
    whole = search(trials=trials, out="whole")
    with pytest.raises(Killed):
        search(killing(at), trials=trials)
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open())) if at else []
    assert [row["state"] for row in rows] == ["complete"] * at
    found = search(trials=trials)
    states = [trial.state for trial in found.trials]
    assert (states.count("complete"), states.count("killed")) == (trials, 1)
    assert found.trials[at + 1].values == found.trials[at].values
    # Seeded by what ended, the search goes the way that it would have gone; beyond TPE's ten random trials, too.
    assert [trial.values for trial in found.trials if trial.state == "complete"] == [t.values for t in whole.trials]
    assert sorted(path.name for path in (tmp_path / "out" / "trials" / f"{at:04d}").iterdir()) == [
        "recipe.yaml", "tensorboard",
    ]  # fmt: skip


def test_a_trial_that_always_kills_is_given_up(search):
    for _ in range(3):
        with pytest.raises(Killed):
            search(killing(0), trials=3)
    found = search(trials=3)
    assert [trial.state for trial in found.trials] == ["killed"] * 3 + ["complete"] * 2  # the third time, it counts
    assert found.trials[2].values == found.trials[0].values != found.trials[3].values


def test_a_pruned_trial_ends_there(search):
    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 1

    found = search(trials=3, pruner=Second())
    assert [(trial.state, trial.epochs) for trial in found.trials] == [("complete", 4), ("pruned", 2), ("complete", 4)]
    assert found.trials[1].value == pytest.approx(near(search.recipes[1], 1))
    assert found.best.number != 1


def test_at_its_last_epoch_a_trial_is_complete(search):
    class Last(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.last_step == 3

    assert [trial.state for trial in search(trials=2, pruner=Last()).trials] == ["complete"] * 2


def test_by_default_the_worse_half_is_pruned_after_three_epochs(search):
    found = search(recipe=recipe_of(epochs=5), trials=12, pruner=None)
    epochs = {trial.epochs for trial in found.trials if trial.state == "pruned"}
    assert epochs == {4}  # the first after the warm-up: which is better does not change
    assert [trial.state for trial in found.trials[:5]] == ["complete"] * 5


def test_the_best_alone_keeps_its_weights(search, tmp_path):
    found = search(trials=8)
    kept = {int(folder.name) for folder in (tmp_path / "out" / "trials").iterdir() if (folder / "ranker").exists()}
    assert kept == {found.best.number}
    assert (tmp_path / "out" / "trials" / f"{found.best.number:04d}" / "checkpoints").exists()


def test_what_stands_in_the_folder(search, tmp_path):
    found = search(trials=8)
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open()))
    assert [int(row["number"]) for row in rows] == list(range(8))
    best = rows[found.best.number]
    assert float(best["val_ndcg@10"]) == found.best.value
    assert float(best["train.learning_rate"]) == found.best.values["train.learning_rate"]
    content = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text("utf-8"))
    assert set(content) == {"data", "model", "train"}
    recipe = Recipe.from_dict(content)
    assert recipe.train == search.recipes[found.best.number].train
    assert recipe.model == search.recipes[found.best.number].model
    assert found.to_dict()["recipe"] == str(tmp_path / "out" / "best.yaml")
    json.dumps(found.to_dict())


def test_the_table_shows_the_best_five(search):
    found = search(trials=11)
    text = str(found)
    table = [line.split() for line in text.splitlines()]
    (row,) = [line for line in table if line[:1] == ["trial"]]
    assert row[1:] == [*(str(trial.number) for trial in found.ranked[:5]), "importance"]
    assert all(any(line[:1] == [key] for line in table) for key in RANGES)
    assert "11 complete" in text
    assert max(len(line) for line in text.splitlines()) <= 130


def failing(*errors):
    """``near``, but trials fail in their first epoch with these errors; None: the trial does not."""
    begun = iter(errors)

    def value(recipe, epoch):
        error = next(begun, None) if epoch == 0 else None
        if error is not None:
            raise error
        return near(recipe, epoch)

    return value


def test_a_failure_is_counted_and_told_and_stops_nothing(search, tmp_path):
    from tfmmrank.tuning.trial import TrialError

    found = search(failing(TrialError("loss became nan"), None, TrialError("loss became nan")), trials=5)
    assert [trial.state for trial in found.trials] == ["failed", "complete", "failed", "complete", "complete"]
    assert found.trials[0].error == "loss became nan"
    assert "failed 2×: loss became nan" in str(found)
    assert (tmp_path / "out" / "trials.csv").read_text().count("loss became nan") == 2
    assert not (tmp_path / "out" / "trials" / "0000" / "ranker").exists()


def test_three_failures_alike_at_the_beginning_end_it(search):
    from tfmmrank.tuning.trial import TrialError

    errors = [TrialError("no lists")] * 9
    with pytest.raises(ValueError, match="all of 3 trials failed, the last 3 alike: no lists"):
        search(failing(*errors), trials=9)
    assert len(search.recipes) == 3
    with pytest.raises(ValueError, match="all of 4 trials failed, the last 3 alike: no lists"):
        search(failing(*errors), trials=9)
    assert len(search(trials=9).ranked) == 5  # mended, it goes on


def test_nothing_but_different_failures(search):
    from tfmmrank.tuning.trial import TrialError

    with pytest.raises(ValueError, match="no trial came to an end: a; b; c"):
        search(failing(*map(TrialError, "abc")), trials=3)


def test_a_value_that_is_no_number_is_a_failure(search):
    found = search(lambda recipe, epoch: float("nan") if recipe.train.batch_size == 4 else 0.5, trials=4)
    assert found.trials[0].error == "validation NDCG@10 is nan"
    assert found.best is not None


def test_an_impossible_combination_is_a_failure(search):
    """Each of the two is fine by itself."""
    ranges = {"model.towers.query.kind": {"choices": ["text", "other"]}, "train.batch_size": {"low": 2, "high": 9}}
    recipe = recipe_of({**ranges, "model.towers.title.kind": {"choices": ["text", "other"]}})
    from tfmmrank.tuning import trial

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "check_options", lambda recipe: None)
        found = search(recipe=recipe, trials=8)
    failed = [tried for tried in found.trials if tried.state == "failed"]
    assert failed
    for tried in failed:
        assert tried.values["model.towers.query.kind"] != tried.values["model.towers.title.kind"]
        assert "only towers of one kind share" in tried.error


def test_a_timeout_begins_no_further_trial(search, monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr("tfmmrank.tuning.search.time.monotonic", lambda: next(clock))
    assert len(search(trials=9, timeout=2.5).trials) == 2  # begun after one and two minutes
    with pytest.raises(ValueError, match="no trial came to an end: none was begun"):
        search(trials=9, timeout=0.5, out="other")


def test_another_search_in_the_folder_is_refused(search, tmp_path):
    search(trials=1)
    wider = {**RANGES, "train.learning_rate": {"low": 1e-5, "high": 1.0, "log": True}}
    for recipe, says in (
        (recipe_of(epochs=5), r"train\.epochs \(4, now 5\); choose another folder"),
        (recipe_of(wider), r"tune\.train\.learning_rate \(\{'low': 0\.0001"),
        (recipe_of({**RANGES, "model.dim": {"low": 8, "high": 9}}), r"tune\.model\.dim \(None, now \{"),
    ):
        with pytest.raises(ValueError, match=rf"study\.json: this study was begun with another {says}"):
            search(recipe=recipe)
    with pytest.raises(ValueError, match=r"begun with another --seed \(0, now 3\)"):
        search(seed=3)
    data = Lists()
    data.build = "two"
    with pytest.raises(ValueError, match="on another dataset, or before data was prepared again; choose another"):
        search(data=data)
    assert len(search(trials=2).trials) == 2


def test_a_mistake_in_the_recipe_does_not_spoil_the_folder(search):
    from tfmmrank.tuning.trial import TrialError

    with pytest.raises(RecipeError, match='unknown fusion "gatde"'):
        search(recipe=recipe_of({"model.fusion.kind": {"choices": ["sum", "gatde"]}}))
    with pytest.raises(ValueError, match="the last 3 alike: unknown loss"):
        search(failing(*[TrialError("unknown loss")] * 3), recipe=recipe_of(loss="softmax_los"))
    found = search(trials=2)
    assert [(trial.number, trial.state) for trial in found.trials] == [(0, "complete"), (1, "complete")]


def test_a_folder_of_something_else_is_left_alone(search, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cat.jpg").touch()
    with pytest.raises(ValueError, match=r"is not empty and holds no study \(study\.json is missing\)"):
        search()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cat.jpg"]


def test_a_damaged_study_is_told(search, tmp_path):
    search(trials=1)
    (tmp_path / "out" / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match=r"study\.db: cannot be read \(.*not a database.*; choose another folder"):
        search()


def test_two_at_once_are_refused(search, tmp_path):
    with (
        open_study(tmp_path / "out", recipe_of(), Lists(), seed=0),
        pytest.raises(ValueError, match="another search is at work here"),
    ):
        search()
    search()


def test_a_folder_of_any_name(search):
    assert len(search(trials=1, out="a b?c#d%20;e=ü&f").trials) == 1
    assert len(search(trials=2, out="a b?c#d%20;e=ü&f").trials) == 2


def test_no_ranges(search):
    with pytest.raises(RecipeError, match="tune: is missing; expected the ranges to search"):
        search(recipe=recipe_of({}))


def test_no_validation_lists(search):
    data = Lists()
    data.splits = ["train", "test"]
    with pytest.raises(ValueError, match="data: has no validation lists, by which trials are compared"):
        search(data=data)


def test_optuna_is_left_as_talkative_as_it_was(search):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        search(trials=1)
        assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
