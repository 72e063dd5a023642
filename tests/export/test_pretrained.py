"""A ranker of pretrained towers, trained, exported and run as TensorFlow Serving runs it."""

import numpy as np
import pytest

from tests.conftest import encode_picture, uncompiled
from tests.evaluation import pair_shops
from tests.tiny_shop import ServedShop, as_bytes, make_recipe
from tests.towers.tiny_encoders import MODEL, add_sources
from tfmmrank.export import export
from tfmmrank.export.op_check import check_ops
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.export.servable import Servable
from tfmmrank.export.signatures import Signatures
from tfmmrank.stack import keras, tf
from tfmmrank.training import build_ranker

# Served, the encoders' sums may come in another order than in the feature store and round to a neighbouring float16, of
# 11 bits; scores are of size 1. Observed: 2e-7, where none does.
TOLERANCE = 3e-3


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return ServedShop(tmp_path_factory.mktemp("shop"), encode_picture, lists=16)


@pytest.fixture(scope="module")
def ranker(shop):
    with pytest.MonkeyPatch.context() as patch:
        add_sources(patch)
        ranker = build_ranker(make_recipe(MODEL), shop)
    ranker.compile(keras.optimizers.Adam(3e-3))
    with uncompiled():
        ranker.fit(shop.dataset("train", ranker, batch_size=8, shuffle=True), epochs=3, verbose=0)
    return ranker


@pytest.fixture(scope="module")
def directory(shop, ranker, tmp_path_factory):
    return export(ranker, shop, tmp_path_factory.mktemp("models") / "tiny", progress=False)


@pytest.fixture(scope="module")
def servable(directory):
    servable = Servable(directory)
    yield servable
    servable.close()


@pytest.fixture(scope="module")
def questions(shop, ranker):
    """Each test list's text, rows, and the scores that predict gives."""
    lists = shop.lists("test")
    scores = shop.scores(ranker)
    spans = [slice(*lists.offsets[q : q + 2]) for q in range(len(lists))]
    return [
        (lists.queries["query"][q], lists.item_rows[span], scores[q, : span.stop - span.start])
        for q, span in enumerate(spans)
    ]


def test_scores_by_id_are_those_of_predict(servable, questions, shop):
    for text, rows, expected in questions:
        inputs = {
            "query": as_bytes([text]), "item_ids": as_bytes(shop.catalogue.ids[rows])[None],
            "num_items": np.array([len(rows)], np.int32),
        }  # fmt: skip
        np.testing.assert_allclose(servable.run("rank", inputs)["scores"][0], expected, atol=TOLERANCE)
    assert np.ptp(np.concatenate([scores for *_, scores in questions])) > 0.5


def test_scores_of_raw_items_are_too(servable, questions, shop):
    for text, rows, expected in questions[:5]:
        raw = shop.catalogue.rows(rows)
        inputs = {"query": as_bytes([text]), "num_items": np.array([len(rows)], np.int32)}
        inputs.update({name: raw[name][None] for name in ("title", "image", "past_clicks")})
        np.testing.assert_allclose(servable.run("rank_features", inputs)["scores"][0], expected, atol=TOLERANCE)


def test_an_encoder_that_is_trained_whole_scores_as_in_predict(tmp_path):
    """Served, its blocks see as many places as the longest text of a request has."""
    shop = pair_shops.make_shop(tmp_path)
    ranker = pair_shops.make_ranker(shop, trainable_blocks=None)
    signatures = Signatures(ranker, RawColumns.of(ranker), None, "")
    score = tf.function(signatures.rank_features, autograph=False, reduce_retracing=True)
    lists, expected = shop.lists("test"), shop.scores(ranker)
    for q in range(3):
        rows = lists.item_rows[lists.of(q)]
        raw = {name: value[None] for name, value in shop.catalogue.rows(rows).items()}
        asked = {**raw, "query": lists.queries["query"][[q]], "num_items": np.array([len(rows)], np.int32)}
        found = score({name: tf.constant(value) for name, value in asked.items()})["scores"][0]
        np.testing.assert_allclose(found, expected[q, : len(rows)], atol=TOLERANCE)
    assert np.ptp(expected[:3, :5]) > 100 * TOLERANCE


def test_every_op_is_known_to_tensorflow_serving(directory):
    assert "FastWordpieceTokenizeWithOffsets" in check_ops(directory)


def test_the_model_holds_no_frozen_weight_twice(servable, ranker, directory):
    """Query and title share one encoder."""
    weights = sum(weight.numpy().nbytes for weight in ranker.weights)
    table = 40 * (2 * 16 + 1) * (11 + 1)  # tokens of the title and the picture in float16, and their masks
    variables = sum(file.stat().st_size for file in (directory / "variables").iterdir())
    assert variables < weights + table + 20_000  # names
