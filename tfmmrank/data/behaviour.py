"""Features of past behaviour, folded from a log without leaks, out of core, in DuckDB.

What a list may see of an item:

- a list **with a time** sees the impressions strictly before it;
- a list **without a time** sees all impressions, except those of validation and test queries and those of its own
  query, which is every query of the same normalised text (``query_key``).

The rule holds for an item's own counts and for the shop's means that its rates are pulled to: no event outside of it
changes any feature of the list.

==================== ===============================================================================================
``past_impressions`` impressions
``past_clicks``      clicks; ``past_carts`` and ``past_purchases`` likewise
``past_ctr``         ``(clicks + prior * mean) / (impressions + prior)``, the mean being the shop's clicks an
                     impression; ``past_cart_rate`` and ``past_purchase_rate`` likewise (all three per impression)
``past_mean_position`` mean position of the impressions that have one; NaN without
``age_days``         days from the item's timestamp to the list's time (0 when it is later), or for a list without a
                     time to the last impression it sees; NaN without an item timestamp
==================== ===============================================================================================

An item without impressions has counts 0 and the shop's mean rates; a rate is NaN when the whole shop has no impression
yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from tfmmrank.schema import Behaviour

_SUMS = ("impressions", "clicks", "carts", "purchases", "position_sum", "positions")

#: Sums over log rows ``e``, named as in _SUMS.
_SUM_EVENTS = """
    count(*)::DOUBLE AS impressions,
    coalesce(sum(e.click), 0) AS clicks,
    coalesce(sum(e.cart), 0) AS carts,
    coalesce(sum(e.purchase), 0) AS purchases,
    coalesce(sum(e.position), 0) AS position_sum,
    count(e.position)::DOUBLE AS positions"""


def add_behaviour(con: duckdb.DuckDBPyConnection, config: Behaviour) -> None:
    """Adds behaviour features of lists, and a snapshot for serving.

    Args:
        con: a connection whose database has ``log(item_row, query_key, ts, position, click, cart, purchase)``, one row
            an impression; ``pairs(list_no, query_key, ts, split, item_row)``; ``items_ts(item_row, ts)``. Times are
            seconds; a missing time, position, cart or purchase is NULL or NaN.
        config: which features, and the strength of the prior.

    Makes two tables: ``pair_behaviour(list_no, item_row, FEATURE FLOAT, ...)``, a row for each of ``pairs``, and
    ``item_behaviour(item_row, FEATURE FLOAT, ...)``, a row for each of ``items_ts``: what a request sees. The snapshot
    leaves out the impressions of validation and test queries. It is what a list at the last training list's time sees
    of the others, thus only what came before; when training lists have no time, all, which is what a test list without
    a time sees too. Missing values are NaN.
    """
    for statement in (_VIEWS, _TIMED, _UNTIMED, _SNAPSHOT):
        con.execute(statement)
    features = _features(config)
    con.execute(
        f"CREATE OR REPLACE TABLE pair_behaviour AS SELECT list_no, item_row, {features} FROM "
        "(SELECT * FROM behaviour_timed UNION ALL BY NAME SELECT * FROM behaviour_untimed)"
    )
    con.execute(f"CREATE OR REPLACE TABLE item_behaviour AS SELECT item_row, {features} FROM behaviour_snapshot")
    con.execute(_CLEAN)


def _features(config: Behaviour) -> str:
    """SQL for the features, over an item's sums, the shop's sums, ``now`` and ``item_ts``."""
    prior = float(config.prior_strength)

    def rate(count: str) -> str:
        mean = f"shop_{count} / shop_impressions"
        smoothed = f"({count} + {prior!r} * {mean}) / (impressions + {prior!r})"
        return (
            f"CASE WHEN shop_impressions = 0 THEN NULL WHEN impressions + {prior!r} = 0 THEN {mean} ELSE {smoothed} END"
        )

    expressions = {
        "past_impressions": "impressions",
        "past_clicks": "clicks",
        "past_carts": "carts",
        "past_purchases": "purchases",
        "past_ctr": rate("clicks"),
        "past_cart_rate": rate("carts"),
        "past_purchase_rate": rate("purchases"),
        "past_mean_position": "CASE WHEN positions > 0 THEN position_sum / positions END",
        "age_days": "CASE WHEN now > item_ts THEN (now - item_ts) / 86400 WHEN now <= item_ts THEN 0 END",
    }
    return ", ".join(f"coalesce({expressions[name]}, 'nan')::FLOAT AS {name}" for name in config.features)


def _each(pattern: str) -> str:
    return ", ".join(pattern.format(name=name) for name in _SUMS)


# DuckDB holds NaN equal to NaN, so nullif turns either form of a missing value into NULL.
_VIEWS = """
CREATE OR REPLACE TEMP VIEW behaviour_events AS
    SELECT item_row, query_key, nullif(ts, 'nan') AS ts, nullif(position, 'nan') AS position,
           nullif(click, 'nan') AS click, nullif(cart, 'nan') AS cart, nullif(purchase, 'nan') AS purchase FROM log;
CREATE OR REPLACE TEMP VIEW behaviour_pairs AS
    SELECT list_no, query_key, nullif(ts, 'nan') AS ts, split, item_row FROM pairs;
CREATE OR REPLACE TEMP VIEW behaviour_items AS SELECT item_row, nullif(ts, 'nan') AS ts FROM items_ts;
CREATE OR REPLACE TEMP VIEW behaviour_allowed AS
    SELECT * FROM behaviour_events
    WHERE query_key NOT IN (SELECT query_key FROM behaviour_pairs WHERE split IN ('valid', 'test')
                           AND query_key IS NOT NULL);
"""

# Each event is credited to the first list time after it; running sums over those times are what came before each.
_TIMED = f"""
CREATE OR REPLACE TEMP TABLE behaviour_item_past AS
    WITH times AS (SELECT DISTINCT item_row, ts FROM behaviour_pairs WHERE ts IS NOT NULL),
    credited AS (
        SELECT t.item_row, t.ts, {_SUM_EVENTS}
        FROM (SELECT * FROM behaviour_events WHERE ts IS NOT NULL) e
        ASOF JOIN times t ON e.item_row = t.item_row AND e.ts < t.ts GROUP BY ALL
    )
    SELECT item_row, ts, {_each("sum(coalesce({name}, 0)) OVER (PARTITION BY item_row ORDER BY ts) AS {name}")}
    FROM times LEFT JOIN credited USING (item_row, ts);
CREATE OR REPLACE TEMP TABLE behaviour_shop_past AS
    WITH times AS (SELECT DISTINCT ts FROM behaviour_pairs WHERE ts IS NOT NULL),
    credited AS (
        SELECT t.ts, {_SUM_EVENTS}
        FROM (SELECT * FROM behaviour_events WHERE ts IS NOT NULL) e ASOF JOIN times t ON e.ts < t.ts GROUP BY ALL
    )
    SELECT ts, {_each("sum(coalesce({name}, 0)) OVER (ORDER BY ts) AS shop_{name}")}
    FROM times LEFT JOIN credited USING (ts);
CREATE OR REPLACE TEMP VIEW behaviour_timed AS
    SELECT p.list_no, p.item_row, p.ts AS now, i.ts AS item_ts, {_each("past.{name}")}, {_each("shop_{name}")}
    FROM behaviour_pairs p
    JOIN behaviour_item_past past ON p.item_row = past.item_row AND p.ts = past.ts
    JOIN behaviour_shop_past shop ON p.ts = shop.ts
    LEFT JOIN behaviour_items i ON p.item_row = i.item_row
    WHERE p.ts IS NOT NULL;
"""

# Totals over what is allowed to all, less what belongs to the list's own query (nothing, for held-out queries).
_UNTIMED = f"""
CREATE OR REPLACE TEMP TABLE behaviour_item_total AS
    SELECT item_row, {_SUM_EVENTS} FROM behaviour_allowed e GROUP BY item_row;
CREATE OR REPLACE TEMP TABLE behaviour_query_total AS
    SELECT query_key, max(ts) AS last, {_SUM_EVENTS} FROM behaviour_allowed e GROUP BY query_key;
CREATE OR REPLACE TEMP TABLE behaviour_shop_total AS
    SELECT max(last) AS last, {_each("coalesce(sum({name}), 0) AS {name}")} FROM behaviour_query_total;
CREATE OR REPLACE TEMP TABLE behaviour_own AS
    SELECT e.item_row, e.query_key, {_SUM_EVENTS} FROM behaviour_allowed e
    SEMI JOIN (SELECT query_key, item_row FROM behaviour_pairs WHERE ts IS NULL) p
        ON e.query_key = p.query_key AND e.item_row = p.item_row
    GROUP BY ALL;
CREATE OR REPLACE TEMP TABLE behaviour_last AS
    SELECT query_key, last FROM behaviour_query_total ORDER BY last DESC NULLS LAST, query_key LIMIT 2;
CREATE OR REPLACE TEMP VIEW behaviour_untimed AS
    SELECT p.list_no, p.item_row, i.ts AS item_ts,
        (SELECT max(last) FROM behaviour_last l WHERE l.query_key IS DISTINCT FROM p.query_key) AS now,
        {_each("coalesce(total.{name}, 0) - coalesce(own.{name}, 0) AS {name}")},
        {_each("shop.{name} - coalesce(query.{name}, 0) AS shop_{name}")}
    FROM behaviour_pairs p
    CROSS JOIN behaviour_shop_total shop
    LEFT JOIN behaviour_item_total total ON p.item_row = total.item_row
    LEFT JOIN behaviour_own own ON p.item_row = own.item_row AND p.query_key = own.query_key
    LEFT JOIN behaviour_query_total query ON p.query_key = query.query_key
    LEFT JOIN behaviour_items i ON p.item_row = i.item_row
    WHERE p.ts IS NULL;
"""

_SNAPSHOT = f"""
CREATE OR REPLACE TEMP TABLE behaviour_end AS
    SELECT max(ts) AS ts FROM behaviour_pairs WHERE split = 'train';
CREATE OR REPLACE TEMP VIEW behaviour_seen AS
    SELECT * FROM behaviour_allowed
    WHERE (SELECT ts FROM behaviour_end) IS NULL OR ts < (SELECT ts FROM behaviour_end);
CREATE OR REPLACE TEMP TABLE behaviour_item_seen AS
    SELECT item_row, {_SUM_EVENTS} FROM behaviour_seen e GROUP BY item_row;
CREATE OR REPLACE TEMP TABLE behaviour_shop_seen AS
    SELECT coalesce((SELECT ts FROM behaviour_end), max(e.ts)) AS now, {_SUM_EVENTS} FROM behaviour_seen e;
CREATE OR REPLACE TEMP VIEW behaviour_snapshot AS
    SELECT i.item_row, i.ts AS item_ts, shop.now, {_each("coalesce(seen.{name}, 0) AS {name}")},
        {_each("shop.{name} AS shop_{name}")}
    FROM behaviour_items i CROSS JOIN behaviour_shop_seen shop
    LEFT JOIN behaviour_item_seen seen ON i.item_row = seen.item_row;
"""

_CLEAN = """
DROP VIEW behaviour_timed; DROP VIEW behaviour_untimed; DROP VIEW behaviour_snapshot; DROP VIEW behaviour_seen;
DROP TABLE behaviour_item_past; DROP TABLE behaviour_shop_past; DROP TABLE behaviour_item_total;
DROP TABLE behaviour_query_total; DROP TABLE behaviour_shop_total; DROP TABLE behaviour_own; DROP TABLE behaviour_last;
DROP TABLE behaviour_end; DROP TABLE behaviour_item_seen; DROP TABLE behaviour_shop_seen;
DROP VIEW behaviour_allowed; DROP VIEW behaviour_events; DROP VIEW behaviour_pairs; DROP VIEW behaviour_items;
"""
