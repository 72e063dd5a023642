"""Splits, and that one query text never stands on two sides."""

from __future__ import annotations

import re

import pytest

from tfmmrank.data import DataError, prepare
from tfmmrank.data.splits import split_by_text
from tfmmrank.data.text import normalize_query
from tfmmrank.schema import RecipeError, Split


def run(shop, **data):
    return prepare(shop.recipe(**data), shop.folder / "out", progress=False)


def fill(shop, count: int, **column) -> None:
    shop.queries = [{"query_id": f"q{i}", "query": f"text {i}", "split": "train"} for i in range(count)]
    for name, values in column.items():
        for row, value in zip(shop.queries, values, strict=True):
            row[name] = value
    shop.judgements = [
        {"query_id": f"q{i}", "item_id": item, "grade": grade}
        for i in range(count)
        for grade, item in enumerate(["i1", "i2"])
    ]


def members(data) -> dict[str, list[str]]:
    return {split: list(data.lists(split).query_ids) for split in data.splits}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red  Shirt", " red shirt "),
        ("ｒｅｄ", "red"),
        ("STRASSE", "straße"),
        ("红色\u3000衬衫", "红色 衬衫"),
        ("ﬁt", "fit"),
    ],
)
def test_normalised_texts_that_are_the_same(one, other):
    assert normalize_query(one) == normalize_query(other)


def test_normalised_texts_that_differ():
    assert normalize_query("红色") != normalize_query("紅色")
    assert normalize_query("red shirt") != normalize_query("redshirt")


def test_a_text_in_two_splits_is_refused(shop):
    shop.queries[3]["query"] = " RED   shirt"
    for policy in ("fail", "skip"):  # the shop's own statement is wrong: no row of it is the bad one
        with pytest.raises(DataError) as caught:
            run(shop, on_bad_row=policy)
        message = 'query text "red shirt" is in split test as query "q4" and in split train as query "q1"'
        assert message in str(caught.value)
        assert "queries.csv: row 5" in str(caught.value)


def test_empty_texts_are_nobodys_secret(shop):
    shop.queries[0]["query"] = shop.queries[3]["query"] = ""
    assert len(run(shop).lists("test")) == 1


def test_one_text_twice_on_one_side_is_fine(shop):
    shop.queries[1]["query"] = "Red shirt"
    assert len(run(shop).lists("train")) == 2


def test_by_query_a_text_always_falls_on_the_same_side(shop):
    fill(shop, 300)
    for i in range(100):
        shop.queries[2 * i]["query"] = f"Text  {2 * i + 1}"  # each odd query's text again, written otherwise
    split = {"by": "query", "valid": 0.2, "test": 0.3, "seed": 5}
    found = members(run(shop, split=split))
    side = {query: name for name, queries in found.items() for query in queries}
    assert len(side) == 300
    assert all(side[f"q{2 * i}"] == side[f"q{2 * i + 1}"] for i in range(100))
    shares = {name: len(queries) / 300 for name, queries in found.items()}
    assert shares == pytest.approx({"train": 0.5, "valid": 0.2, "test": 0.3}, abs=0.09)  # 3 deviations of 200 texts
    assert members(run(shop, split=split)) == found
    assert members(run(shop, split={**split, "seed": 6})) != found


def test_by_query_shares_are_nested_by_hash():
    texts = [f"t{i}" for i in range(2000)]
    small = {t for t in texts if split_by_text(t, Split(by="query", test=0.1, valid=0.0)) == "test"}
    large = {t for t in texts if split_by_text(t, Split(by="query", test=0.2, valid=0.0)) == "test"}
    assert small < large
    assert len(small) / 2000 == pytest.approx(0.1, abs=0.02)


def test_by_query_without_text_goes_by_the_id(shop):
    fill(shop, 100)
    shop.query_columns = {"text": None}
    found = members(run(shop, split={"by": "query"}))
    assert set(found) == {"train", "valid", "test"}


def test_by_time_the_latest_are_for_test(shop):
    order = [3, 7, 1, 9, 0, 8, 2, 6, 4, 5]
    fill(shop, 10, time=[f"2026-01-{day + 1:02d}" for day in order])
    shop.query_columns = {"timestamp": "time"}
    found = members(run(shop, split={"by": "time", "valid": 0.2, "test": 0.3}))
    days = {split: sorted(order[int(query[1:])] for query in queries) for split, queries in found.items()}
    assert days == {"train": [0, 1, 2, 3, 4], "valid": [5, 6], "test": [7, 8, 9]}


def test_by_time_one_moment_is_not_parted(shop):
    fill(shop, 10, time=[f"2026-01-0{day}" for day in (1, 1, 1, 1, 2, 2, 2, 2, 2, 3)])
    shop.query_columns = {"timestamp": "time"}
    found = members(run(shop, split={"by": "time", "valid": 0.0, "test": 0.2}))
    assert {name: len(queries) for name, queries in found.items()} == {"train": 4, "test": 6}


def test_by_time_recurring_texts(shop):
    fill(shop, 10, time=[f"2026-01-{day + 1:02d}" for day in range(10)])
    shop.query_columns = {"timestamp": "time"}
    shop.queries[9]["query"] = "TEXT 0"
    split = {"by": "time", "valid": 0.2, "test": 0.3}
    with pytest.raises(
        DataError, match=re.escape('query text "text 0" is in split test as query "q9" and in split train')
    ):
        run(shop, split=split)
    data = run(shop, split=split, on_bad_row="skip")
    assert data.meta["report"]["skipped"]["query text in two splits"] == 1
    assert members(data)["test"] == ["q7", "q8"]


def test_by_time_needs_times(shop):
    with pytest.raises(RecipeError, match=r'split\.by is "time", so queries\.timestamp must name the column'):
        shop.recipe(split={"by": "time"})
    fill(shop, 2, time=["2026-01-01", ""])
    shop.query_columns = {"timestamp": "time"}
    with pytest.raises(DataError, match=r'queries\.csv: row 3: column "time": found nothing; expected ISO 8601'):
        run(shop, split={"by": "time"})


def test_shares_that_leave_nothing_to_train_on(shop):
    with pytest.raises(RecipeError, match="leave nothing to train on"):
        shop.recipe(split={"by": "query", "valid": 0.5, "test": 0.5})
