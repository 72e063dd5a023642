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
LABELS = {"kind": "logs", "table": "log.csv", "cart": "cart", "purchase": "purchase", "propensity": "propensity"}


def run(shop, log=LOG, labels=None, **data):
    pd.DataFrame(log, columns=COLUMNS).to_csv(shop.folder / "log.csv", index=False)
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
    found = rows(run(shop, labels={"debias": "ipw"}), "train")
    assert found["q1"]["i1"] == (2.0, pytest.approx((1 / 0.9 + 1 / 0.25) / 2))  # the mean over both clicks
    assert found["q1"]["i3"] == (0.0, 1.0)  # not clicked
    assert found["q2"]["i4"] == (3.0, 10.0)  # 1 / 0.01, clipped


def test_inverse_propensity_needs_propensities(shop):
    with pytest.raises(RecipeError, match='debias is "ipw", so propensity must name'):
        run(shop, labels={"debias": "ipw", "propensity": None})
    log = [*LOG, ("q4", "i1", 60, 1, 1, 0, 0, 0.0)]
    with pytest.raises(
        DataError, match=re.escape("log.csv: row 12: column \"propensity\": found '0.0'; expected a number")
    ):
        run(shop, log, labels={"debias": "ipw"})


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
    pd.DataFrame(LOG, columns=COLUMNS).to_csv(shop.folder / "log.csv", index=False)
    extra = [("elsewhere", "i1", 5, 1, 1, 0, 0, 1.0)]  # traffic of queries that are in no list
    pd.DataFrame(LOG + extra, columns=COLUMNS).to_csv(shop.folder / "log.csv", index=False)
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
