"""Mixed precision: a twin trains in bfloat16; the ranker, what is saved of it and what is exported are float32."""

import json
from copy import deepcopy

import numpy as np
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import RECIPE_MODEL, ServedShop, make_recipe
from tests.towers.tiny_encoders import MODEL as PRETRAINED
from tests.towers.tiny_encoders import add_sources
from tfmmrank.data.batches import ListBatches
from tfmmrank.export import export
from tfmmrank.ranker import PADDING_SCORE, Ranker
from tfmmrank.stack import keras, tf
from tfmmrank.training import build_ranker, fit
from tfmmrank.training.mixed import mixed_twin

# bfloat16 keeps 8 bits: each of some ten layers rounds by up to 0.4%. Observed: at most 6% of the scores' deviation in
# any score, 2% in the mean.
FARTHEST, MEAN = 0.15, 0.04


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return ServedShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=16)


def batch_of(shop, ranker, count=6):
    batches = ListBatches(shop, "train", ranker, batch_size=count + 1, static=True, progress=False)
    return tf.nest.map_structure(tf.constant, batches.batch(np.arange(count)))


def assert_near(found, expected):
    """Scores differ by no more than bfloat16 explains, and sort items alike."""
    difference, spread = np.abs(found - expected), expected.std()
    assert difference.max() < FARTHEST * spread
    assert difference.mean() < MEAN * spread
    assert np.corrcoef(found, expected)[0, 1] > 0.995


def test_all_kinds_of_towers_and_list_context(shop):
    """Scores near float32's, and a step; TF-Ranking's layer of list context mixes types from two layers on."""
    model = {**RECIPE_MODEL, "dim": 16, "context": {"layers": 2}}
    ranker = build_ranker(make_recipe(model), shop, progress=False).build_from_columns()
    twin = mixed_twin(ranker)
    assert keras.mixed_precision.global_policy().name == "float32"
    assert {part.compute_dtype for part in (twin.fusion, twin.cross, *twin.towers)} == {"bfloat16"}
    assert {weight.dtype for weight in twin.weights if weight.dtype.is_floating} == {tf.float32}
    batch = batch_of(shop, ranker)
    real = batch[1].numpy() >= 0
    expected, found = ranker(batch[0]).numpy(), twin(batch[0]).numpy()
    assert found.dtype == np.float32
    assert (found[~real] == PADDING_SCORE).all()
    assert_near(found[real], expected[real])

    twin.compile("sgd", metrics=None)
    before = [weight.numpy() for weight in twin.trainable_weights]
    assert np.isfinite(twin.train_step(batch)["loss"])
    moved = [np.abs(weight - old).max() for weight, old in zip(twin.trainable_weights, before, strict=True)]
    assert np.isfinite(moved).all()
    assert np.mean(np.array(moved) > 0) > 0.9


@pytest.mark.parametrize("blocks", [0, *(pytest.param(some, marks=pytest.mark.slow) for some in (1, None))])
def test_pretrained_towers_and_matches(shop, monkeypatch, blocks):
    add_sources(monkeypatch)
    model = deepcopy(PRETRAINED)
    model["towers"]["query"]["trainable_blocks"] = model["towers"]["image"]["trainable_blocks"] = blocks
    if blocks == 0:  # a frozen picture tower computes what a frozen text tower does
        del model["towers"]["image"]
    model["towers"]["words"] = {"kind": "lexical", "columns": ["title"]}
    model["towers"]["asked"] = {"kind": "lexical", "side": "query", "columns": ["query"], "share": "words"}
    model["match"] = {
        "meaning": {"kind": "cosine", "query": "query", "item": "title"},
        "tokens": {"kind": "late", "query": "query", "item": "title"},
        "same": {"kind": "lexical", "query": "asked", "item": "words"},
    }
    ranker = build_ranker(make_recipe(model), shop, progress=False).build_from_columns()
    # An encoder of random weights finds everything alike, to a millionth; brought to scale, that would be all rounding.
    ranker.matching.deviation.assign(np.maximum(ranker.matching.deviation.numpy(), 0.1))
    twin = mixed_twin(ranker)
    batch = batch_of(shop, ranker)
    real = batch[1].numpy() >= 0
    assert_near(twin(batch[0]).numpy()[real], ranker(batch[0]).numpy()[real])
    exact, rounded = ranker.match_features(batch[0]), twin.match_features(batch[0])
    assert rounded.dtype == tf.float32
    # Of frozen encoders and words the same; of an encoder that computes in bfloat16, cosines of rounded vectors.
    words = [name.startswith("same/") or blocks == 0 for name in ranker.matching.names]
    np.testing.assert_array_equal(rounded.numpy()[..., words], exact.numpy()[..., words])
    np.testing.assert_allclose(rounded, exact, atol=0.02)


def train(shop, run, callbacks=()):
    towers = {name: RECIPE_MODEL["towers"][name] for name in ("query", "behaviour")}
    towers["query"] = {**towers["query"], "layers": 0}
    model = {**RECIPE_MODEL, "dim": 16, "towers": towers, "fusion": "mean"}
    settings = {"epochs": 2, "batch_size": 4, "patience": 0, "checkpoint_every_steps": 3}
    recipe = make_recipe(model, learning_rate=0.01, mixed_precision=True, **settings)
    ranker = build_ranker(recipe, shop, progress=False)
    return ranker, fit(ranker, recipe.train, shop, run, progress=False, callbacks=callbacks)


@pytest.fixture(scope="module")
def trained(shop, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return *train(shop, run), run


def test_training_leaves_float32_alone(trained, shop):
    ranker, history, run = trained
    assert keras.mixed_precision.global_policy().name == "float32"
    assert history["loss"][1] < history["loss"][0]
    assert {layer.compute_dtype for layer in ranker._flatten_layers() if layer is not ranker.task} == {"float32"}
    settings = (run / "ranker" / "ranker.json").read_text("utf-8")
    assert "bfloat16" not in settings
    assert all("dtype" not in part for part in (*json.loads(settings)["towers"], json.loads(settings)["fusion"]))

    batch = batch_of(shop, ranker)
    np.testing.assert_array_equal(Ranker.load_ranker(run / "ranker")(batch[0]), ranker(batch[0]))
    # The best epoch's weights came over from the twin, which validated in bfloat16.
    reached = ranker.evaluate(shop.dataset("valid", ranker), verbose=0, return_dict=True)["ndcg@10"]
    assert reached == pytest.approx(max(history["val_ndcg@10"]), abs=0.02)


@pytest.mark.slow
def test_what_was_trained_can_be_exported(trained, shop, tmp_path):
    export(trained[0], shop, tmp_path / "model", progress=False)


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(trained, shop, tmp_path):
    class Killed(BaseException):
        pass

    def kill(step, logs):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(shop, tmp_path, [keras.callbacks.LambdaCallback(on_train_batch_end=kill)])
    ranker, history = train(shop, tmp_path)
    assert history["val_ndcg@10"] == trained[1]["val_ndcg@10"]
    for mine, theirs in zip(ranker.weights, trained[0].weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_computes_in_bfloat16_is_not_exported(trained, shop, tmp_path):
    with pytest.raises(ValueError, match=r"computes in bfloat16.*save it.*and export what load_ranker gives"):
        export(mixed_twin(trained[0]), shop, tmp_path / "model", progress=False)
    assert not list(tmp_path.glob("model/*"))
