"""Statistics of training lists, against numbers counted by hand and by pandas."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.conftest import encode_picture
from tests.tiny_shop import ServedShop, as_bytes
from tfmmrank.data.text import word_count
from tfmmrank.export.raw_inputs import Column, RawColumns
from tfmmrank.export.statistics import (
    STATISTICS_FILE,
    describe,
    histogram,
    script_shares,
    shares_of,
    training_statistics,
)


def test_bins_hold_equally_many():
    found = histogram(np.arange(1000.0))
    assert found["edges"] == [100 * k for k in range(1, 10)]
    assert found["shares"] == pytest.approx([0.1] * 10)
    assert histogram([]) == {"edges": [], "shares": []}


def test_equal_edges_stand_once():
    found = histogram([3] * 99 + [7])
    assert found == {"edges": [3.0], "shares": [0.0, 1.0]}
    assert shares_of([1, 2, 3, 7], found["edges"]) == [0.5, 0.5]


def test_a_bin_begins_at_its_edge():
    assert shares_of([-5, 0, 0.5, 1, 2], [0, 1]) == [0.2, 0.4, 0.4]


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("red shoes, 42", 3), ("红色 shoe", 3), ("красная-обувь", 2), ("naïve", 1)]
)
def test_words(text, words):
    assert word_count(text) == words


def test_scripts_are_shares_of_texts():
    assert script_shares(["ab 12", "红 x 色", "я", "12"]) == {"latin": 0.25, "han": 0.25, "other": 0.5}
    assert script_shares([]) == {"latin": 0, "han": 0, "other": 0}


def test_columns_by_kind():
    numbers = describe("numeric", np.array([1, 2, np.nan, 2], np.float32))
    assert numbers["missing"] == 0.25
    assert shares_of([1, 2, 2], numbers["edges"]) == numbers["shares"]
    categories = describe("categorical", as_bytes(["a", "b", "a", ""]))
    assert categories == {"kind": "categorical", "missing": 0.25, "values": {"a": 0.5, "b": 0.25}, "other": 0.0}
    assert describe("image", np.array([True, False])) == {"kind": "picture", "missing": 0.5}
    text = describe("text", as_bytes(["red shoe", "红鞋", ""]))
    assert text["missing"] == pytest.approx(1 / 3)
    assert text["characters"] == {"edges": [8.0], "shares": [0.5, 0.5]}
    assert text["words"] == {"edges": [2.0], "shares": [0.0, 1.0]}


def test_rare_values_are_counted_together():
    found = describe("categorical", as_bytes([f"v{i % 60}" for i in range(600)]))
    assert len(found["values"]) == 50
    assert found["other"] == pytest.approx(10 / 60)


@pytest.fixture(scope="module")
def statistics(served):
    return json.loads((served.model_dir / "1" / STATISTICS_FILE).read_text("utf-8"))


def test_a_version_holds_those_of_its_training_lists(served, statistics):
    lists = served.prepared.lists("train")
    assert (statistics["version"], statistics["lists"], statistics["places"]) == (1, len(lists), len(lists.labels))
    assert list(statistics["columns"]) == [
        "query", "user age", "season", "title", "picture", "price", "Brand", "past_impressions", "past_ctr", "age_days",
    ]  # fmt: skip
    items = served.prepared.catalogue.rows(lists.item_rows)
    columns = statistics["columns"]
    assert columns["picture"] == {"kind": "picture", "missing": pytest.approx((items["picture"] == b"").mean())}
    assert columns["price"]["missing"] == pytest.approx(np.isnan(items["price"]).mean())
    brands = pd.Series(items["Brand"]).value_counts(normalize=True)
    assert columns["Brand"]["values"] == pytest.approx({"Acme": brands[b"Acme"], "Zenit": brands[b"Zenit"]})
    assert columns["Brand"]["missing"] == pytest.approx(brands[b""])
    assert columns["query"]["scripts"]["han"] > 0
    ctr = lists.slots["past_ctr"]
    assert columns["past_ctr"]["missing"] == pytest.approx(np.isnan(ctr).mean())
    lengths = np.diff(lists.offsets)
    assert statistics["list_length"]["shares"] == shares_of(lengths, statistics["list_length"]["edges"])


def test_scores_are_those_of_the_training_lists(statistics, servable, served):
    """Asked one by one; the statistics are of many a request."""
    lists, ids = served.prepared.lists("train"), served.prepared.catalogue.ids
    scores = []
    for q in range(len(lists)):
        asked = {name: values[q : q + 1] for name, values in lists.queries.items()}
        asked["item_ids"] = as_bytes(ids[lists.item_rows[lists.of(q)]])[None]
        asked["num_items"] = np.array([asked["item_ids"].shape[1]], np.int32)
        scores.extend(servable.run("rank", asked)["scores"][0])
    found = statistics["scores"]
    assert found["unknown"] == 0
    assert len(found["edges"]) == 19
    # A score may stand at an edge, and be rounded to its other side in a list that is padded otherwise.
    np.testing.assert_allclose(np.cumsum(found["shares"]), np.cumsum(shares_of(scores, found["edges"])), atol=0.02)


class SlotScores:
    """A model without a catalogue, whose score is its one slot column."""

    signatures = ("rank_features",)

    def run(self, signature, inputs):
        assert signature == "rank_features"
        assert {"past_clicks", "num_items"} <= set(inputs) <= {"query", "past_clicks", "num_items"}
        return {"scores": inputs["past_clicks"]}


def test_without_a_catalogue_lists_are_scored_by_their_features(tmp_path):
    data = ServedShop(tmp_path, encode_picture, lists=40)
    columns = RawColumns(query=(Column("query", False),), item=(), slot=(Column("past_clicks", True),))
    found = training_statistics(data, columns, SlotScores())
    lists = data.lists("train")
    assert list(found["columns"]) == ["query", "past_clicks"]
    assert found["scores"] == {**histogram(lists.slots["past_clicks"], 20), "unknown": 0.0}
    assert found["columns"]["past_clicks"]["shares"] == histogram(lists.slots["past_clicks"])["shares"]


def test_samples_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("tfmmrank.export.statistics.MOST_LISTS", 10)
    monkeypatch.setattr("tfmmrank.export.statistics.MOST_PLACES", 30)
    data = ServedShop(tmp_path, encode_picture, lists=40)
    columns = RawColumns(query=(), item=(Column("image", False),), slot=(Column("past_clicks", True),))
    found = training_statistics(data, columns, SlotScores())
    assert (found["lists"], found["places"]) == (10, 30)
    assert found["columns"]["image"]["kind"] == "picture"
