"""Behaviour features against hand-computed numbers, a slow plain-Python reference, and the leak rule."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import pandas as pd
import pytest

from tfmmrank.data.behaviour import add_behaviour
from tfmmrank.schema import BEHAVIOUR_FEATURES, Behaviour

DAY = 86400.0
LOG = ["item_row", "query_key", "ts", "position", "click", "cart", "purchase"]
PAIRS = ["list_no", "query_key", "ts", "split", "item_row"]


def run(log, pairs, items, prior=20.0, features=None, **settings):
    """The two tables as frames sorted by key."""
    con = duckdb.connect()
    for name, value in settings.items():
        con.execute(f"SET {name}='{value}'")
    con.execute(
        "CREATE TABLE log(item_row INTEGER, query_key VARCHAR, ts DOUBLE, position DOUBLE, click DOUBLE, cart DOUBLE, "
        "purchase DOUBLE);"
        "CREATE TABLE pairs(list_no BIGINT, query_key VARCHAR, ts DOUBLE, split VARCHAR, item_row INTEGER);"
        "CREATE TABLE items_ts(item_row INTEGER, ts DOUBLE)"
    )
    for table, rows in (("log", log), ("pairs", pairs), ("items_ts", items)):
        if len(rows):
            con.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", [list(row) for row in rows])
    config = Behaviour(logs={"table": "log.csv"}, prior_strength=prior, features=list(features or BEHAVIOUR_FEATURES))
    add_behaviour(con, config)
    kept = {row[0] for row in con.execute("SHOW TABLES").fetchall()}
    assert kept == {"log", "pairs", "items_ts", "pair_behaviour", "item_behaviour"}
    return (
        con.execute("SELECT * FROM pair_behaviour ORDER BY list_no, item_row").df(),
        con.execute("SELECT * FROM item_behaviour ORDER BY item_row").df(),
    )


def test_timed_list_by_hand():
    log = [
        (0, "a", 10.0, 1.0, 1, 1, 0),
        (0, "b", 20.0, 3.0, 0, 0, 0),
        (1, "b", 20.0, 2.0, 1, 0, None),
        (0, "a", 30.0, None, 1, 1, 1),  # at the list's own time: not before it
    ]
    pairs = [
        (0, "x", 30.0, "train", 0),
        (0, "x", 30.0, "train", 1),
        (0, "x", 30.0, "train", 2),
        (1, "y", 5.0, "train", 0),
    ]
    got, snapshot = run(log, pairs, [(0, 30.0 - 2 * DAY), (1, 40.0), (2, None)], prior=4.0)
    assert list(got.columns) == ["list_no", "item_row", *BEHAVIOUR_FEATURES]
    assert all(got[name].dtype == np.float32 for name in BEHAVIOUR_FEATURES)
    # shop before 30: 3 impressions, 2 clicks, 1 cart, 0 purchases
    zero, one, two, early = (got.iloc[i] for i in range(4))
    expected = [2, 1, 1, 0, (1 + 4 * 2 / 3) / 6, (1 + 4 / 3) / 6, 0, 2.0, 2.0]
    assert zero[list(BEHAVIOUR_FEATURES)].to_list() == pytest.approx(expected, rel=1e-6)
    assert one[list(BEHAVIOUR_FEATURES)].to_list() == pytest.approx(
        [1, 1, 0, 0, (1 + 8 / 3) / 5, (4 / 3) / 5, 0, 2, 0], rel=1e-6
    )
    assert two[list(BEHAVIOUR_FEATURES)][:7].to_list() == pytest.approx([0, 0, 0, 0, 2 / 3, 1 / 3, 0], rel=1e-6)
    assert math.isnan(two.past_mean_position)
    assert math.isnan(two.age_days)
    assert early.past_impressions == 0
    assert math.isnan(early.past_ctr)  # nobody has seen anything yet: there is no mean to fall back on
    # The snapshot is what the last training list sees, at 30.
    pd.testing.assert_frame_equal(got[got.list_no == 0].drop(columns="list_no"), snapshot)
    # Later, item 0's impression without a position counts, but not in the mean of positions.
    later, _ = run(log, [(0, "x", 31.0, "train", 0)], [(0, None)])
    assert later[["past_impressions", "past_purchases", "past_mean_position"]].iloc[0].to_list() == [3, 1, 2]


def test_untimed_list_by_hand():
    log = [
        (0, "own", 1.0, 1, 1, 0, 0),
        (0, "other", 2.0, 2, 1, 0, 0),
        (0, "other", 3.0, 4, 0, 0, 0),
        (1, "other", 4.0, 1, 0, 0, 0),
        (0, "held", 9.0, 1, 1, 1, 1),
    ]
    pairs = [(0, "own", None, "train", 0), (1, "held", None, "test", 0), (1, "held", None, "test", 1)]
    got, snapshot = run(log, pairs, [(0, 4.0 - DAY), (1, None)], prior=2.0)
    train, test = got.iloc[0], got.iloc[1]
    # own query left out: 3 impressions, 1 click in the shop; item 0 has 2 and 1
    assert train[["past_impressions", "past_clicks", "past_mean_position", "age_days"]].to_list() == [2, 1, 3, 1]
    assert train.past_ctr == pytest.approx((1 + 2 / 3) / 4, rel=1e-6)
    # the test list sees all but test queries: 4 impressions, 2 clicks; item 0 has 3 and 2
    assert test[["past_impressions", "past_clicks", "past_carts"]].to_list() == [3, 2, 0]
    assert test.past_ctr == pytest.approx((2 + 2 * 2 / 4) / 5, rel=1e-6)
    pd.testing.assert_frame_equal(got[got.list_no == 1].drop(columns="list_no").reset_index(drop=True), snapshot)


def test_no_log_at_all_and_no_prior():
    got, snapshot = run([], [(0, "q", None, "train", 0), (1, "r", 7.0, "test", 0)], [(0, 1.0)], prior=0.0)
    assert got.past_impressions.to_list() == [0, 0]
    assert got.past_ctr.isna().all()
    assert got.age_days.isna().to_list() == [True, False]  # without a log there is no "now" for a list without a time
    assert len(snapshot) == 1
    got, _ = run([(0, "z", 1.0, 1, 1, 0, 0)], [(0, "q", None, "train", 0), (0, "q", None, "train", 1)], [], prior=0.0)
    assert got.past_ctr.to_list() == [1.0, 1.0]  # item 1: no impressions, no prior, so the shop's mean


def test_only_the_features_asked_for():
    got, snapshot = run(
        [(0, "z", 1.0, 1, 1, 0, 0)], [(0, "q", None, "train", 0)], [(0, None)], features=["past_ctr", "past_clicks"]
    )
    assert list(got.columns) == ["list_no", "item_row", "past_ctr", "past_clicks"]
    assert list(snapshot.columns) == ["item_row", "past_ctr", "past_clicks"]


def reference(log, pairs, items, prior):
    """The documented rule, list by list, in plain Python."""
    split_of = {row[1]: row[3] for row in pairs}
    added = dict(items)
    rows = []
    for list_no, query, ts, _, item in pairs:
        if ts is not None:
            seen = [e for e in log if e[2] < ts]
            now = ts
        else:
            seen = [e for e in log if split_of.get(e[1]) not in ("valid", "test") and e[1] != query]
            now = max((e[2] for e in seen), default=None)
        own = [e for e in seen if e[0] == item]
        places = [e[3] for e in own if e[3] is not None]
        row = [list_no, item, len(own)]
        row += [sum(e[k] for e in own) for k in (4, 5, 6)]
        for k in (4, 5, 6):
            mean = sum(e[k] for e in seen) / len(seen) if seen else math.nan
            row.append((sum(e[k] for e in own) + prior * mean) / (len(own) + prior))
        row.append(sum(places) / len(places) if places else math.nan)
        start = added.get(item)
        row.append(max(now - start, 0) / DAY if now is not None and start is not None else math.nan)
        rows.append(row)
    return pd.DataFrame(rows, columns=["list_no", "item_row", *BEHAVIOUR_FEATURES])


def random_shop(seed, timed):
    rng = np.random.default_rng(seed)
    log = []
    for _ in range(400):
        click = int(rng.random() < 0.4)
        cart = int(click and rng.random() < 0.5)
        place = None if rng.random() < 0.1 else float(rng.integers(1, 9))
        log.append((int(rng.integers(8)), f"q{rng.integers(12)}", float(rng.integers(50)) * 3600, place, click, cart,
                    int(cart and rng.random() < 0.5)))  # fmt: skip
    pairs = []
    for list_no in range(16):  # lists of queries that are in the log and of some that are not
        split = ("train", "train", "valid", "test")[list_no % 4]
        ts = float(rng.integers(50)) * 3600 if timed == "all" or (timed == "some" and list_no % 3 == 0) else None
        pairs += [(list_no, f"q{list_no}", ts, split, int(item)) for item in rng.choice(10, 5, replace=False)]
    return log, pairs, [(i, None if i == 3 else -float(i) * DAY) for i in range(10)]


@pytest.mark.parametrize("timed", ["all", "none", "some"])
def test_equals_the_plain_reference(timed):
    log, pairs, items = random_shop(1, timed)
    got, _ = run(log, pairs, items, prior=3.0)
    expected = reference(log, pairs, items, 3.0).sort_values(["list_no", "item_row"]).reset_index(drop=True)
    # float32 storage: 24 bits
    pd.testing.assert_frame_equal(got, expected, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("timed", ["all", "none"])
def test_what_a_list_may_not_see_does_not_change_it(timed):
    log, pairs, items = random_shop(2, timed)
    before, snapshot = run(log, pairs, items)
    by_list = {row[0]: row for row in pairs}
    held_out = {row[1] for row in pairs if row[3] != "train"}
    for list_no, query, ts, _, _ in list(by_list.values())[:6]:

        def hidden(event, query=query, ts=ts):
            return event[2] >= ts if ts is not None else event[1] in held_out or event[1] == query

        changed = [(*e[:3], 1.0, 1 - e[4], 1, 1) if hidden(e) else e for e in log]
        changed += [
            (item, held_out and sorted(held_out)[0], 99 * DAY, 1.0, 1, 1, 1) for item in range(10)
        ]  # in the future
        if ts is None:
            changed += [(item, query, 99 * DAY, 1.0, 1, 1, 1) for item in range(10)]
        after, _ = run(changed, pairs, items)
        same = before.list_no == list_no
        pd.testing.assert_frame_equal(before[same], after[same])
        assert not before[~same].equals(after[~same]) or ts is None
    if timed == "none":
        only_held_out = [(*e[:3], 1.0, 1 - e[4], 1, 1) if e[1] in held_out else e for e in log]
        pd.testing.assert_frame_equal(run(only_held_out, pairs, items)[1], snapshot)
    else:
        end = max(row[2] for row in pairs if row[3] == "train")
        later = [(*e[:3], 1.0, 1 - e[4], 1, 1) if e[2] >= end or e[1] in held_out else e for e in log]
        pd.testing.assert_frame_equal(run(later, pairs, items)[1], snapshot)


def test_untimed_test_lists_equal_the_snapshot():
    log, pairs, items = random_shop(3, "none")
    got, snapshot = run(log, pairs, items)
    split_of = {row[0]: row[3] for row in pairs}
    held = got[got.list_no.map(split_of) != "train"].drop(columns="list_no")
    assert len(held) > 10
    joined = held.merge(snapshot, on="item_row", suffixes=("", "_snapshot"))
    for name in BEHAVIOUR_FEATURES:
        np.testing.assert_array_equal(joined[name], joined[f"{name}_snapshot"])


def test_the_snapshot_knows_nothing_of_held_out_queries_and_else_is_what_the_last_training_list_sees():
    log = [
        (0, "a", 1.0, 1, 1, 0, 0),
        (0, "test", 2.0, 1, 1, 1, 1),
        (0, "b", 3.0, 1, 0, 0, 0),
        (0, "b", 9.0, 1, 1, 0, 0),
    ]
    pairs = [(0, "a", 9.0, "train", 0), (1, "test", 1.0, "test", 0), (2, "b", 5.0, "train", 0)]
    _, snapshot = run(log, pairs, [(0, 9.0 - DAY)])
    assert snapshot[["past_impressions", "past_clicks", "past_carts", "age_days"]].iloc[0].to_list() == [2, 1, 0, 1]
    got, without = run([e for e in log if e[1] != "test"], pairs, [(0, 9.0 - DAY)])
    pd.testing.assert_frame_equal(snapshot, without)
    pd.testing.assert_frame_equal(got[got.list_no == 0].drop(columns="list_no"), without)


def test_missing_values_may_be_nan():
    nan = math.nan
    plain = run([(0, "a", 1.0, None, 1, None, None)], [(0, "q", None, "train", 0)], [(0, None)])
    with_nan = run([(0, "a", 1.0, nan, 1, nan, nan)], [(0, "q", nan, "train", 0)], [(0, nan)])
    for left, right in zip(plain, with_nan, strict=True):
        pd.testing.assert_frame_equal(left, right)
