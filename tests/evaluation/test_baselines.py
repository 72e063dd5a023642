"""Baselines: BM25 by hand, popularity's sources, the order of their scores."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from tfmmrank.evaluation import BM25, Oracle, Popularity, Random, fit_baselines, labels_of, ndcg, tokenize


def test_tokenize():
    assert tokenize("Red  SHOES, size-42!") == ["red", "shoe", "size", "42"]
    assert tokenize("红色鞋 Nike") == ["红", "色", "鞋", "红色", "色鞋", "nike"]
    assert tokenize("ｉＰｈｏｎｅ手机壳") == ["iphone", "手", "机", "壳", "手机", "机壳"]
    assert tokenize("dresses batteries glass bus shoes gas") == ["dresse", "battery", "glass", "bus", "shoe", "gas"]
    assert tokenize("한국어 신발") == ["한국어", "신발"]  # written with spaces
    assert tokenize(" ,.!_ ") == []


def test_bm25_by_hand(tiny_data):
    """Lucene's BM25 written out: idf = ln(1 + (N − df + 0.5) / (df + 0.5)), tf / (tf + k1 (1 − b + b len / mean))."""
    documents = [
        ["red", "shirt"],
        ["blue", "shirt", "shirt"],
        ["b", "green", "b", "mug", "bag"],
        ["红", "色", "红色", "衬", "衫", "衬衫"],
    ]
    k1, b, mean = 1.2, 0.75, np.mean([len(document) for document in documents])

    def by_hand(query, document):
        total = 0.0
        for word in query:
            df = sum(word in other for other in documents)
            tf = document.count(word)
            idf = log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean))
        return total

    bm25 = BM25().fit(tiny_data)
    for query, words in [("red shirt", ["red", "shirt"]), ("红色", ["红", "色", "红色"]), ("red red", ["red", "red"])]:
        expected = [by_hand(words, document) for document in documents]
        np.testing.assert_allclose(bm25.score_items(query), expected, rtol=1e-6)  # bm25s keeps float32
    assert bm25.score_items("unknown words").tolist() == [0, 0, 0, 0]
    assert bm25.score_items("").tolist() == [0, 0, 0, 0]

    lists, scores = tiny_data.lists("test"), bm25.scores(tiny_data, "test")
    for number, some in enumerate(scores):
        query = tokenize(lists.queries["query"][number].decode())
        rows = lists.item_rows[lists.of(number)]
        np.testing.assert_allclose(some, [by_hand(query, documents[row]) for row in rows], rtol=1e-6)

    rows, found = bm25.top("red shirt", 10)
    assert rows.tolist() == [0, 1]  # matching items only
    assert found[0] > found[1] > 0


def test_bm25_options_and_errors(tiny_data, letor_data):
    assert BM25(columns=["title"]).fit(tiny_data).score_items("mug").argmax() == 2
    with pytest.raises(ValueError, match=r'no text column "titel"; did you mean "title"\?'):
        BM25(columns=["titel"]).fit(tiny_data)
    with pytest.raises(ValueError, match="no catalogue with texts"):
        BM25().fit(letor_data)
    with pytest.raises(ValueError, match="call fit"):
        BM25().score_items("mug")


def test_random_is_seeded(demo_data):
    first, again, other = (Random(seed).fit(demo_data).scores(demo_data, "test") for seed in (1, 1, 2))
    assert [len(some) for some in first] == [len(some) for some in labels_of(demo_data, "test")]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_oracle_is_perfect(demo_data):
    scores = Oracle().fit(demo_data).scores(demo_data, "test")
    assert ndcg(labels_of(demo_data, "test"), scores).mean == 1


def test_popularity_prefers_what_was_known_at_the_time(demo_data):
    popularity = Popularity().fit(demo_data)
    lists = demo_data.lists("test")
    expected = np.nan_to_num(lists.slots["past_clicks"])
    assert popularity.source == "past_clicks"
    np.testing.assert_array_equal(np.concatenate(popularity.scores(demo_data, "test")), expected)


def test_popularity_by_training_labels(tiny_data):
    popularity = Popularity().fit(tiny_data)
    assert popularity.source == "train labels"
    rows = np.concatenate([tiny_data.lists("test").item_rows])
    labels_in_train = {"i1": 0, "i2": 2, "i3": 1, "i4": 0}
    expected = [labels_in_train[name] for name in tiny_data.catalogue.ids[rows]]
    assert np.concatenate(popularity.scores(tiny_data, "test")).tolist() == expected


def test_popularity_by_a_named_column(tiny_data, letor_data):
    scores = Popularity("price").fit(tiny_data).scores(tiny_data, "test")
    assert set(np.concatenate(scores).tolist()) == {1.0}
    with pytest.raises(ValueError, match=r'"prise"; did you mean "price"\?'):
        Popularity("prise").fit(tiny_data)
    with pytest.raises(ValueError, match="no catalogue and no column such as past_clicks"):
        Popularity().fit(letor_data)
    with pytest.raises(ValueError, match="call fit"):
        Popularity().scores(tiny_data, "test")


def test_a_missing_value_ranks_with_the_lowest(demo_data):
    popularity = Popularity("rating").fit(demo_data)
    popularity._by_item = np.where(np.arange(len(demo_data.catalogue)) % 3 == 0, np.nan, -2.0 - np.arange(120))
    values = np.concatenate(popularity.scores(demo_data, "test"))
    rows = demo_data.lists("test").item_rows
    assert np.isfinite(values).all()
    assert (values[rows % 3 == 0] == values.min()).all()


def test_the_baselines_a_dataset_allows(demo_data, tiny_data, letor_data):
    assert [baseline.name for baseline in fit_baselines(demo_data)] == ["random", "popularity", "bm25", "oracle"]
    assert [baseline.name for baseline in fit_baselines(tiny_data)] == ["random", "popularity", "bm25", "oracle"]
    assert [baseline.name for baseline in fit_baselines(letor_data)] == ["random", "oracle"]


def test_on_the_demo_shop_the_order_is_as_one_expects(demo_data):
    labels = labels_of(demo_data, "test")
    found = {b.name: ndcg(labels, b.scores(demo_data, "test")).mean for b in fit_baselines(demo_data)}
    assert found["random"] < found["bm25"] < found["oracle"]
