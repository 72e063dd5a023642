"""Features of pairs: against the ranker's own, list by list, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.evaluation.pair_shops import NO_PICTURE, NO_TITLE, FeatureLists, make_ranker, make_shop
from tests.tiny_shop import as_bytes
from tfmmrank.evaluation import PairFeatures, ZeroShot
from tfmmrank.evaluation.bm25 import BM25
from tfmmrank.evaluation.pair_columns import PairColumns
from tfmmrank.evaluation.scoring import check_scores
from tfmmrank.stack import tf


def test_what_a_ranker_offers(features):
    assert features.match_names == [
        "title/cosine", "title/present", "words/bm25", "words/overlap", "words/idf_overlap", "words/present",
    ]  # fmt: skip
    assert features.cosines == ["title"]
    assert features.towers == ["query", "title", "image"]  # the query's first
    assert features.columns.names == ["past_clicks", "price", "brand"]
    assert features.columns.categorical.tolist() == [False, False, True]


def test_match_features_are_the_rankers_list_by_list(shop, ranker, features):
    found = features.of_matches("test")
    lists = shop.lists("test")
    assert found.shape == (len(lists.item_rows), 6)
    for number, (batch, _, _) in enumerate(shop.dataset("test", ranker, batch_size=1)):
        start, stop = lists.offsets[number : number + 2]
        expected = ranker.match_features(batch).numpy()[0, : stop - start]
        np.testing.assert_allclose(found[start:stop], expected, atol=1e-6)  # float32 sums of another shape
    assert features.of_matches("test") is found  # computed once


def test_vectors_are_the_encoders_of_each_pairs_query_and_item(shop, ranker, features):
    lists = shop.lists("valid")
    by_name = {tower.name: tower for tower in ranker.towers}
    query, title, image = (features.vectors(name, "valid") for name in ("query", "title", "image"))
    assert query.values.shape == (24, 16)
    np.testing.assert_array_equal(query.places, np.repeat(np.arange(24), np.diff(lists.offsets)))
    seen = np.unique(np.concatenate([shop.lists(split).item_rows for split in shop.splits]))
    assert image.values.shape == (len(seen), 192)  # of items in lists only
    for pair in (0, 17, len(lists.item_rows) - 1):
        row, number = int(lists.item_rows[pair]), int(query.places[pair])
        for vectors, tower, column, values in (
            (query, "query", "query", lists.queries["query"][[number]]),
            (title, "title", "title", shop.catalogue.rows([row], ["title"])["title"]),
            (image, "image", "image", shop.catalogue.rows([row], ["image"])["image"]),
        ):
            raw = {column: tf.constant(values)}
            expected = by_name[tower].match_tokens(by_name[tower].embed(by_name[tower].preprocess(raw)))
            found = vectors.values[vectors.places[pair]]
            np.testing.assert_allclose(found, expected.values[0, 0], atol=2e-3)  # half precision of numbers up to 2
            assert vectors.present[vectors.places[pair]] == expected.mask[0, 0]


def test_what_is_missing_is_told(shop, features):
    rows = shop.lists("train").item_rows
    for tower, item in (("title", NO_TITLE), ("image", NO_PICTURE)):
        vectors = features.vectors(tower, "train")
        without = vectors.places[rows == item]
        assert len(without)
        assert not vectors.present[without].any()
        assert (vectors.values[without] == 0).all()
        assert vectors.present[vectors.places[rows == 0]].all()


def test_columns_by_hand(shop):
    lists = shop.lists("test")
    found = PairColumns(shop).of("test")
    prices = shop.catalogue.rows(lists.item_rows, ["price"])["price"]
    np.testing.assert_array_equal(found[:, 0], lists.slots["past_clicks"])
    np.testing.assert_array_equal(found[:, 1], prices)
    # 14 of Acme (items 0, 3, …), 13 of Zenit; the third brand is missing
    np.testing.assert_array_equal(found[:, 2], np.array([0, 1, np.nan], np.float32)[lists.item_rows % 3])


def test_wide_columns_and_categories_of_queries(tmp_path):
    data = FeatureLists(tmp_path)
    assert PairColumns(data).names == [f"features/{i}" for i in range(5)]
    np.testing.assert_array_equal(PairColumns(data).of("train"), data.lists("train").slots["features"])
    data.query_columns = {"query": "text", "device": "categorical", "hour": "numeric"}
    for split, devices in (("train", [b"phone", b"", b"tv", b"tv"]), ("test", [b"watch", b"phone", b"tv", b"tv"])):
        some = np.resize(as_bytes(devices), 40)
        data.lists(split).queries.update(device=some, hour=np.full(40, 7, np.float32))
    found = PairColumns(data).of("test")
    of_query = found[data.lists("test").offsets[:3], 5:]
    assert of_query.tolist() == [[2, 7], [1, 7], [0, 7]]  # not seen in training: after those that were
    missing = PairColumns(data).of("train")[data.lists("train").offsets[1], 5]
    assert np.isnan(missing)


def test_trained_encoders_are_left_out(shop):
    ranker = make_ranker(shop, trainable_blocks=1)
    with pytest.warns(UserWarning, match="leave out the towers query, title, whose encoders are trained"):
        features = PairFeatures(ranker, shop)
    assert features.cosines == []
    assert features.towers == ["image"]
    assert features.match_names == ["words/bm25", "words/overlap", "words/idf_overlap", "words/present"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = PairFeatures(make_ranker(shop), shop).of_matches("test")[:, 2:]
    np.testing.assert_allclose(features.of_matches("test"), same, atol=1e-6)


def test_without_a_ranker(shop):
    features = PairFeatures(None, shop)
    assert (features.match_names, features.cosines, features.towers) == ([], [], [])
    assert features.of_matches("test").shape == (len(shop.lists("test").item_rows), 0)


def test_zero_shot_is_the_cosine_of_the_vectors(shop, features):
    system = ZeroShot(features, "title").fit(shop)
    assert system.name == "zero-shot title"
    scores = system.scores(shop, "train")
    check_scores(shop.lists("train"), scores, "zero-shot")
    query, title = features.vectors("query", "train"), features.vectors("title", "train")
    a, b = query.values[query.places].astype(float), title.values[title.places].astype(float)
    with np.errstate(invalid="ignore"):
        expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected[shop.lists("train").item_rows == NO_TITLE] = -2
    np.testing.assert_allclose(np.concatenate(scores), expected, atol=2e-3)  # queries' vectors in half precision here
    assert min(np.concatenate(scores)) == -2  # without a title, last


def test_bad_arguments(shop, features, tmp_path):
    with pytest.raises(ValueError, match=r'no cosine match "titel" of frozen encoders; did you mean "title"\?'):
        ZeroShot(features, "titel")
    other = make_shop(tmp_path, seed=1)
    with pytest.raises(ValueError, match="the features are of dataset"):
        ZeroShot(features, "title").fit(other)


def test_bm25_is_there_where_the_ranker_compares_no_words(demo_data):
    bm25 = BM25().fit(demo_data)
    features = PairFeatures(None, demo_data, bm25=bm25)
    assert features.match_names == ["bm25"]
    np.testing.assert_array_equal(features.of_matches("test")[:, 0], np.concatenate(bm25.scores(demo_data, "test")))


def test_bm25_is_not_there_twice(shop):
    assert "bm25" not in PairFeatures(make_ranker(shop), shop, bm25=object()).match_names
