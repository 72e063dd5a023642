"""Training by a recipe: what it leaves, when it stops, and that a killed run ends where an uninterrupted one does."""

import dataclasses
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import MemoryShop, make_recipe
from tfmmrank.ranker import Ranker
from tfmmrank.runs import refuse_seen_queries
from tfmmrank.schema import RecipeError
from tfmmrank.training import build_ranker, fit, make_optimizer, make_strategy
from tfmmrank.training.checkpoint import ResumableTraining


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return MemoryShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=22)


OPTIONS = {"epochs": 3, "batch_size": 4, "learning_rate": 3e-3, "patience": 0, "checkpoint_every_steps": 2, "seed": 5}
OPTIONS["weight_averaging"] = 0.9  # another state that must survive a kill
STEPS = 6  # an epoch of 22 lists, 4 a batch
WHOLE = {"batch_size": 22}  # an epoch in one step
# Quick to trace; with dropout, whose random state must survive a kill too.
MODEL = {
    "dim": 16,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "layers": 0, "dropout": 0.2},
        "title": {"kind": "text", "columns": ["title"], "share": "query"},
        "behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"], "dropout": 0.2},
    },
    "fusion": {"kind": "sum"},
    "cross": {"layers": 1, "deep": [16], "dropout": 0.2},
    "modality_dropout": {"title": 0.2},
}


def train(shop, run, resume=True, **options):
    recipe = make_recipe(MODEL, **{**OPTIONS, **options})
    ranker = build_ranker(recipe, shop)
    history = fit(ranker, recipe.train, shop, run, resume=resume, progress=False)
    return ranker, history


@pytest.fixture(scope="module")
def whole(shop, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    ranker, history = train(shop, run)
    return ranker, history, run


def weights(ranker):
    return [variable.numpy() for variable in ranker.trainable_variables]


def test_leaves_ranker_history_and_logs(whole, shop):
    ranker, history, run = whole
    assert json.loads((run / "history.json").read_text()) == history
    assert len(history["loss"]) == len(history["val_ndcg@10"]) == 3
    assert list((run / "tensorboard").rglob("events.*"))
    np.testing.assert_allclose(shop.scores(Ranker.load_ranker(run / "ranker")), shop.scores(ranker), atol=1e-6)


def test_training_lowers_the_loss(whole):
    assert whole[1]["loss"][-1] < whole[1]["loss"][0]


def test_the_best_epoch_is_kept(whole, shop):
    ranker, history, _ = whole
    reached = ranker.evaluate(shop.dataset("valid", ranker), verbose=0, return_dict=True)["ndcg@10"]
    assert reached == pytest.approx(max(history["val_ndcg@10"]), abs=1e-6)


class Killed(BaseException):
    """What no handler in between catches."""


def test_resumes_where_it_was_killed(whole, shop, tmp_path, monkeypatch):
    """Killed again and again, past a checkpoint, in an epoch's middle and at its end: the weights are the same."""
    done, kills = [], [(0, STEPS - 1), (1, STEPS)]
    on_train_batch_end = ResumableTraining.on_train_batch_end

    def killing(self, batch, logs=None):
        on_train_batch_end(self, batch, logs)
        done.append((self.state["epoch"], self.state["step"]))
        if kills and done[-1] == kills[0]:
            del kills[0]
            raise Killed

    monkeypatch.setattr(ResumableTraining, "on_train_batch_end", killing)
    while kills:
        with pytest.raises(Killed):
            train(shop, tmp_path)
        assert not (tmp_path / "ranker").exists()
    resumed, history = train(shop, tmp_path)
    assert len(done) == 3 * STEPS + 1 + 2  # each time it went on from the last checkpoint, of an even step
    assert history["val_ndcg@10"] == whole[1]["val_ndcg@10"]
    for mine, theirs in zip(weights(resumed), weights(whole[0]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def begun(shop, tmp_path_factory):
    """A run of one epoch."""
    run = tmp_path_factory.mktemp("begun")
    train(shop, run, epochs=1)
    return run


def test_more_epochs_go_on_from_a_finished_run(whole, begun, shop, tmp_path):
    shutil.copytree(begun, tmp_path / "run")
    _, history = train(shop, tmp_path / "run")
    assert history == whole[1]


def test_callbacks_of_ones_own_see_every_epoch_once_its_checkpoint_is_kept(shop, tmp_path, uncompiled):
    from tfmmrank.stack import keras

    seen = []

    def stop(epoch, logs):
        seen.append((epoch, logs["val_ndcg@10"]))
        raise Killed

    def train_and_tell(tell):
        recipe = make_recipe(MODEL, **{**OPTIONS, **WHOLE, "epochs": 2})
        callback = keras.callbacks.LambdaCallback(on_epoch_end=tell)
        return fit(build_ranker(recipe, shop), recipe.train, shop, tmp_path, progress=False, callbacks=[callback])

    with pytest.raises(Killed):
        train_and_tell(stop)
    history = train_and_tell(lambda epoch, logs: seen.append((epoch, logs["val_ndcg@10"])))
    assert seen == list(enumerate(history["val_ndcg@10"]))


def test_a_checkpoint_of_something_else_is_refused(shop, begun, tmp_path, monkeypatch):
    run = shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(ValueError, match="of another model, dataset, training options or version; begin again"):
        train(shop, run, epochs=2, learning_rate=0.1)
    monkeypatch.setattr(sys.modules[fit.__module__], "__version__", "0.0.1")
    with pytest.raises(ValueError, match="of another model, dataset, training options or version; begin again"):
        train(shop, run, epochs=2)


def test_fewer_epochs_than_are_trained_are_refused(shop, whole):
    with pytest.raises(ValueError, match="3 epochs are trained, and train.epochs is 2"):
        train(shop, whole[2], epochs=2)


@pytest.mark.parametrize("what", ["validation labels", "titles", "past clicks"])
def test_a_checkpoint_of_changed_data_is_refused(begun, tmp_path, what):
    changed = MemoryShop(tmp_path / "changed", encode_picture, lists=22)
    # Turned round, so that what towers learn from all of it is the same.
    if what == "validation labels":
        changed.lists("valid").labels[:] = changed.lists("valid").labels[::-1].copy()
    elif what == "past clicks":
        changed.lists("train").slots["past_clicks"] = changed.lists("train").slots["past_clicks"][::-1]
    else:
        changed.catalogue._columns["title"] = changed.catalogue._columns["title"][::-1]
    run = shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(ValueError, match="of another model, dataset, training options or version"):
        train(changed, run, epochs=2)


def test_early_stopping(shop, tmp_path, uncompiled):
    """A learning rate of zero never gets better than after the first epoch."""
    _, history = train(shop, tmp_path, learning_rate=1e-30, epochs=9, patience=2, **WHOLE)
    assert len(history["loss"]) == 3


def test_validation_lists_without_a_positive_label_are_not_stopped_by(tmp_path, uncompiled):
    shop = MemoryShop(tmp_path / "shop", encode_picture, lists=8)
    shop.lists("valid").labels[:] = 0
    with pytest.warns(UserWarning, match='no query of split "valid" .* trained without validation'):
        _, history = train(shop, tmp_path / "run", epochs=2, patience=1, **WHOLE)
    assert len(history["loss"]) == 2
    assert "val_ndcg@10" not in history


def test_a_loss_that_is_not_finite_is_told_and_nothing_of_the_run_before_is_left(shop, begun, tmp_path, uncompiled):
    run = shutil.copytree(begun, tmp_path / "run")
    assert (run / "ranker").is_dir()
    with pytest.raises(FloatingPointError, match=r"training loss became nan in epoch \d; lower train.learning_rate"):
        train(shop, run, resume=False, learning_rate=1e30, clip_norm=None, **WHOLE)
    assert not (run / "ranker").exists()
    assert not (run / "history.json").exists()


@pytest.mark.parametrize(
    ("name", "options"), [("adam", {}), ("adamw", {"weight_decay": 0.1}), ("adagrad", {}), ("sgd", {})]
)
def test_optimizers_by_name(name, options):
    optimizer = make_optimizer(make_recipe(optimizer=name, learning_rate=0.5, clip_norm=2.0, **options).train)
    assert type(optimizer).__name__.lower() == name
    assert float(optimizer.learning_rate) == 0.5
    assert optimizer.global_clipnorm == 2.0


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="adamm"):
        make_optimizer(make_recipe(optimizer="adamm").train)


def test_strategy_on_a_plain_machine(monkeypatch):
    for name in ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    assert make_strategy().num_replicas_in_sync == 1


def test_nothing_to_learn_is_told_before_anything_is_written(shop, tmp_path, monkeypatch):
    lists = shop.lists
    monkeypatch.setattr(shop, "lists", lambda split: dataclasses.replace(lists(split), labels=0 * lists(split).labels))
    with pytest.raises(ValueError, match='no query of split "train" of dataset .* has a positive label'):
        train(shop, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_without_validation_is_told(shop, tmp_path, monkeypatch, uncompiled):
    monkeypatch.setattr(shop, "splits", ["train"])
    with pytest.warns(UserWarning, match='no split "valid" in dataset .*: trained without validation'):
        train(shop, tmp_path / "run", epochs=1, **WHOLE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "softmax_los"}, 'train.loss: unknown loss "softmax_los"; did you mean "softmax_loss"'),
        ({"loss": "ordinal_loss"}, 'train.loss: loss "ordinal_loss" needs a score a grade'),
        ({"optimizer": "adma"}, 'train.optimizer: unknown optimizer "adma"; did you mean "adamax"'),
    ],
)
def test_wrong_options_are_told_before_anything_is_written_or_removed(shop, begun, tmp_path, options, said):
    with pytest.raises(RecipeError, match=said):
        train(shop, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=said):
        train(shop, begun, resume=False, **options)
    assert (begun / "ranker").is_dir()
    assert (begun / "checkpoints").is_dir()


def test_queries_that_were_seen_are_refused(whole, shop):
    """Query texts, not ids, tell: the same text under another id was taught all the same."""
    _, _, run = whole
    refuse_seen_queries(run, shop, "train")
    taught = shop.lists("train")
    ids = np.array([f"x{q}" for q in range(len(taught))], object)

    def other(texts):
        queries = {"query": np.array(texts, object)}
        lists = dataclasses.replace(taught, query_ids=ids, queries=queries)
        return SimpleNamespace(path="other", lists=lambda split: lists)

    texts = taught.queries["query"].tolist()
    new = [f"new {q}".encode() for q in range(len(taught))]
    refuse_seen_queries(run, other(new), "test")
    known = other([*new[:-1], b"  " + texts[3].upper()])
    with pytest.raises(
        ValueError, match=f'other: 1 of {len(taught)} queries of split "test" are .* query "x{len(new) - 1}"'
    ):
        refuse_seen_queries(run, known, "test")
    refuse_seen_queries(run / "nothing is kept here", known, "test")
