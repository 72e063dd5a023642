"""Behaviour logs folded into labels, and features of past behaviour in the lists."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from tfmmrank.data import DataError, prepare
from tfmmrank.schema import RecipeError

LOG = [
    # query, item, time, position, click, cart, purchase, propensity
    ("q1", "i1", 10, 1, 1, 0, 0, 0.9),
    ("q1", "i2", 10, 2, 0, 0, 0, 0.5),
    ("q1", "i1", 20, 3, 1, 1, 0, 0.25),
    ("q1", "i3", 20, 4, 0, 0, 0, 0.1),
    ("q2", "i4", 30, 9, 1, 1, 1, 0.01),
    ("q2", "i2", 30, 1, 0, 0, 0, 1.0),
    ("q3", "i1", 40, 1, 1, 0, 0, 0.9),
    ("q3", "i3", 40, 2, 0, 0, 0, 0.5),
    ("q4", "i4", 50, 1, 0, 0, 1, 0.9),
    ("q4", "i3", 50, 2, 1, 0, 0, 0.5),
]
COLUMNS = ["query_id", "item_id", "timestamp", "position", "click", "cart", "purchase", "propensity"]
LABELS = {"kind": "logs", "table": "log.csv", "cart": "cart", "purchase": "purchase"}
IPW = {"debias": "ipw", "propensity": "propensity"}

START = 1_700_000_000  # what the times below count from: numbers outside 1990 to 2100 are no times


def table(log):
    frame = pd.DataFrame(log, columns=COLUMNS)
    return frame.assign(timestamp=[START + at if isinstance(at, int) else at for at in frame["timestamp"].tolist()])


def run(shop, log=LOG, labels=None, **data):
    table(log).to_csv(shop.folder / "log.csv", index=False)
    recipe = shop.recipe(labels={**LABELS, **(labels or {})}, **data)
    return prepare(recipe, shop.folder / "out", progress=False)


def rows(data, split):
    lists = data.lists(split)
    return {
        query: {
            str(data.catalogue.ids[row]): (float(label), float(weight))
            for row, label, weight in zip(
                lists.item_rows[lists.of(q)], lists.labels[lists.of(q)], lists.weights[lists.of(q)], strict=True
            )
        }
        for q, query in enumerate(lists.query_ids)
    }


def test_one_list_a_query_with_the_highest_grade_of_its_events(shop):
    data = run(shop)
    assert rows(data, "train") == {
        "q1": {"i1": (2.0, 1.0), "i2": (0.0, 1.0), "i3": (0.0, 1.0)},
        "q2": {"i4": (3.0, 1.0), "i2": (0.0, 1.0)},
    }
    assert rows(data, "test") == {"q4": {"i4": (3.0, 1.0), "i3": (1.0, 1.0)}}
    assert data.slot_columns == {}  # positions are no features


def test_grades_are_the_recipes(shop):
    data = run(shop, labels={"grades": {"click": 1, "purchase": 5}})
    assert rows(data, "train")["q1"]["i1"] == (1.0, 1.0)  # the cart does not count
    assert rows(data, "train")["q2"]["i4"] == (5.0, 1.0)


def test_inverse_propensity_weights(shop):
    found = rows(run(shop, labels=IPW), "train")
    assert found["q1"]["i1"] == (2.0, pytest.approx((1 / 0.9 + 1 / 0.25) / 2))  # the mean over both clicks
    assert found["q1"]["i3"] == (0.0, 1.0)  # not clicked
    assert found["q2"]["i4"] == (3.0, 10.0)  # 1 / 0.01, clipped
    assert rows(run(shop, labels={**IPW, "max_weight": 50}), "train")["q2"]["i4"] == (3.0, 50.0)


def test_inverse_propensity_needs_propensities(shop):
    with pytest.raises(RecipeError, match='debias is "ipw", so propensity must name'):
        run(shop, labels={"debias": "ipw"})
    log = [*LOG, ("q4", "i1", 60, 1, 1, 0, 0, 0.0)]
    with pytest.raises(
        DataError, match=re.escape("log.csv: row 12: column \"propensity\": found '0.0'; expected a number")
    ):
        run(shop, log, labels=IPW)


@pytest.mark.parametrize(
    ("row", "cause", "message"),
    [
        (
            ("q9", "i1", 1, 1, 0, 0, 0, 1),
            "log row for an unknown query",
            'column "query_id": query "q9" is not in the queries',
        ),
        (
            ("q1", "i9", 1, 1, 0, 0, 0, 1),
            "log row for an unknown item",
            'column "item_id": item "i9" is not in the items',
        ),
        (
            ("q1", "i1", "noon", 1, 0, 0, 0, 1),
            "unreadable time",
            "column \"timestamp\": found 'noon'; expected ISO 8601",
        ),
        (("q1", "i1", 1, 1, -1, 0, 0, 1), "negative click", "column \"click\": found '-1'; expected at least 0"),
        (("q1", "i1", 1, 1, None, 0, 0, 1), "missing click", 'column "click": found nothing; expected a number'),
    ],
)
def test_bad_rows(shop, row, cause, message):
    with pytest.raises(DataError, match=re.escape(f"log.csv: row 12: {message}")):
        run(shop, [*LOG, row])
    assert run(shop, [*LOG, row], on_bad_row="skip").meta["report"]["skipped"] == {cause: 1}


def test_behaviour_features_are_slot_columns_and_a_snapshot_in_the_catalogue(shop):
    table(LOG).to_csv(shop.folder / "log.csv", index=False)
    extra = [("elsewhere", "i1", 5, 1, 1, 0, 0, 1.0)]  # traffic of queries that are in no list
    table(LOG + extra).to_csv(shop.folder / "log.csv", index=False)
    names = ["past_impressions", "past_clicks"]
    recipe = shop.recipe(behaviour={"logs": LABELS, "features": names})
    data = prepare(recipe, shop.folder / "out", progress=False)
    assert data.slot_columns == {"past_impressions": 1, "past_clicks": 1}
    assert data.snapshot_columns == names
    assert data.item_columns == {"title": "text", "image": "image", "price": "numeric", "brand": "categorical"}
    lists = data.lists("train")
    # Untimed lists see all impressions but those of valid and test queries and their own: of q1's items (i1, i4, i2)
    # only i1 was shown elsewhere, i4 and i2 in q2; of q2's (i2, i1) i2 was shown in q1, i1 twice in q1 and elsewhere.
    np.testing.assert_array_equal(lists.slots["past_impressions"], np.float32([1, 1, 1, 1, 3]))
    np.testing.assert_array_equal(lists.slots["past_clicks"], np.float32([1, 1, 0, 0, 3]))
    snapshot = data.catalogue.rows(range(4), columns=names)
    np.testing.assert_array_equal(snapshot["past_impressions"], np.float32([3, 2, 1, 1]))
    np.testing.assert_array_equal(snapshot["past_clicks"], np.float32([3, 0, 0, 1]))
    picture = data.catalogue.rows([0], columns=["image"])["image"][0]
    assert picture == (shop.folder / "i1.png").read_bytes()


# -- no event is label and feature both --------------------------------------------------------------------------------


def times(shop, *times) -> None:
    """Gives the queries times."""
    for row, time in zip(shop.queries, times, strict=True):
        row["time"] = START + time if isinstance(time, int) else time
    shop.query_columns["timestamp"] = "time"


def seen(data, split, feature="past_clicks"):
    """A feature by query and item."""
    lists = data.lists(split)
    return {
        query: dict(
            zip(data.catalogue.ids[lists.item_rows[lists.of(q)]], lists.slots[feature][lists.of(q)], strict=True)
        )
        for q, query in enumerate(lists.query_ids)
    }


def test_a_list_with_a_time_is_labelled_by_events_at_its_time_or_later(shop):
    times(shop, 20, 30, 40, 50)
    data = run(shop, behaviour={"logs": LABELS})
    # q1's events at 10 are its past; those at 20 are its labels.
    assert rows(data, "train")["q1"] == {"i1": (2.0, 1.0), "i3": (0.0, 1.0)}
    assert seen(data, "train")["q1"] == {"i1": 1, "i3": 0}
    report = data.meta["report"]
    assert report["noted"]["log row before its list's time: no label"] == 2
    when = f"is from {START + 10}, its list from {START + 20} (seconds since 1970)"
    message = f'log.csv: row 2: an event of query "q1" {when}'
    assert report["examples"]["log row before its list's time: no label"].endswith(message)


@pytest.mark.parametrize("change", ["click", "cart", "purchase"])
def test_no_event_that_labels_a_list_changes_its_features(shop, change):
    times(shop, 20, "", 35, 50)  # q2 has none: all its events are labels
    before = run(shop, behaviour={"logs": LABELS})
    side = {query: split for split in before.splits for query in before.lists(split).query_ids}
    column = COLUMNS.index(change)
    moment = dict(zip(["q1", "q2", "q3", "q4"], [20, 0, 35, 50], strict=True))
    for query, at in moment.items():
        log = [
            (*row[:column], 1 - row[column], *row[column + 1 :]) if row[0] == query and row[2] >= at else row
            for row in LOG
        ]
        after = run(shop, log, behaviour={"logs": LABELS})
        for feature in before.slot_columns:
            np.testing.assert_equal(seen(before, side[query], feature)[query], seen(after, side[query], feature)[query])
        assert rows(before, side[query])[query] != rows(after, side[query])[query]


def test_two_ids_of_one_text_do_not_see_each_others_clicks(shop):
    shop.queries[1]["query"] = "RED  shirt"  # q2 asks what q1 asks
    log = [*LOG, ("q2", "i1", 30, 1, 1, 0, 0, 1.0)]
    data = run(shop, log, behaviour={"logs": LABELS})
    assert seen(data, "train") == {"q1": {"i1": 0, "i2": 0, "i3": 0}, "q2": {"i4": 0, "i2": 0, "i1": 0}}
    shop.queries[1]["query"] = ""  # without text, ids tell queries apart
    assert seen(run(shop, log, behaviour={"logs": LABELS}), "train")["q1"]["i1"] == 1


def test_the_events_of_a_held_out_text_are_hidden_by_text(shop):
    """One test query's text stands under two ids; the one without labels of its own is held out with the other."""
    shop.queries.append({"query_id": "q5", "query": "GIFT", "split": "test"})
    shop.judgements += [{"query_id": "q5", "item_id": "i1", "grade": 1}]
    shop.judgements = [row for row in shop.judgements if row["query_id"] != "q4"]
    logs = [("q4", "i1", 10, 1, 1, 0, 0, 1.0), ("elsewhere", "i1", 10, 1, 0, 0, 0, 1.0)]
    table(logs).to_csv(shop.folder / "log.csv", index=False)
    recipe = shop.recipe(behaviour={"logs": LABELS}, on_bad_row="skip")
    data = prepare(recipe, shop.folder / "out", progress=False)
    assert seen(data, "train")["q1"]["i1"] == 0
    assert data.catalogue.rows([0])["past_clicks"][0] == 0


def test_by_time_no_label_is_from_a_later_splits_time(shop):
    times(shop, 5, 15, 30, 40)
    log = [
        *[(query, "i1", at, 1, 0, 0, 0, 1) for query, at in (("q1", 6), ("q2", 16), ("q3", 31), ("q4", 41))],
        ("q1", "i2", 29, 1, 1, 0, 0, 1), ("q1", "i3", 30, 1, 1, 0, 0, 1), ("q2", "i1", 99, 1, 1, 0, 0, 1),
        ("q3", "i2", 39, 1, 1, 0, 0, 1), ("q3", "i1", 40, 1, 1, 0, 0, 1), ("q4", "i2", 99, 1, 1, 0, 0, 1),
    ]  # fmt: skip
    split = {"by": "time", "valid": 0.25, "test": 0.25}
    data = run(shop, log, split=split)
    assert rows(data, "train") == {"q1": {"i1": (0, 1), "i2": (1, 1)}, "q2": {"i1": (0, 1)}}
    assert rows(data, "valid") == {"q3": {"i1": (0, 1), "i2": (1, 1)}}
    assert rows(data, "test") == {"q4": {"i1": (0, 1), "i2": (1, 1)}}
    report = data.meta["report"]
    assert report["noted"]["log row in a later split's time: no label"] == 3
    assert "row 7: " in report["examples"]["log row in a later split's time: no label"]
    with pytest.raises(
        DataError,
        match=r'query "q4" has no label; expected at least one log row at its time \(time\) or later, and before',
    ):
        run(shop, [row for row in log if row[0] != "q4"], split=split)


# -- one log, read once ------------------------------------------------------------------------------------------------


def test_one_log_for_labels_and_behaviour_is_read_and_reported_once(shop):
    bad = [("q1", "i9", 1, 1, 0, 0, 0, 1), ("q1", "i1", "noon", 1, 0, 0, 0, 1), ("elsewhere", "i1", 5, 1, 1, 0, 0, 1)]
    data = run(shop, LOG + bad, behaviour={"logs": LABELS}, on_bad_row="skip")
    report = data.meta["report"]
    assert report["read"] == {"items": 4, "queries": 4, "log rows": 13}
    assert report["skipped"] == {
        "log row for an unknown item": 1, "unreadable time": 1, "log row for an unknown query": 1,
    }  # fmt: skip
    # Traffic of unknown queries makes no label, and is past behaviour all the same.
    assert seen(data, "train")["q2"]["i2"] == 0
    assert data.catalogue.rows([0])["past_clicks"][0] == 3


def test_two_logs_are_read_one_by_one(shop):
    data = run(shop, behaviour={"logs": {**LABELS, "position": "position"}})
    assert data.meta["report"]["read"] == {"items": 4, "queries": 4, "label log rows": 10, "log rows": 10}


def test_a_log_needs_no_positions(shop):
    without = table(LOG).drop(columns="position")
    run(shop)
    without.to_csv(shop.folder / "log.csv", index=False)
    data = prepare(shop.recipe(labels=LABELS, behaviour={"logs": LABELS}), shop.folder / "out", progress=False)
    assert np.isnan(data.lists("train").slots["past_mean_position"]).all()
