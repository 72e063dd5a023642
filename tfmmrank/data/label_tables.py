"""Judgements and behaviour logs to one table of labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data import columns
from tfmmrank.data.errors import DataError, Report
from tfmmrank.data.splits import SPLITS
from tfmmrank.data.tables import Chunk, read_chunks
from tfmmrank.data.workbench import Workbench
from tfmmrank.schema import Judgements, Logs, Recipe


def load_judgements(recipe: Recipe, labels: Judgements, bench: Workbench, report: Report, progress: bool) -> None:
    """Fills ``labels(q_row, item_row, grade, weight, place)`` from a table of graded judgements."""
    bench.con.execute(
        "CREATE TABLE labels (q_row BIGINT, item_row INTEGER, grade FLOAT, weight FLOAT, place BIGINT, file VARCHAR, "
        "row BIGINT)"
    )
    wanted = [labels.query_id, labels.item_id, labels.grade] + ([labels.weight] if labels.weight else [])
    place = 0
    bar = tqdm(desc="labels", unit="row", disable=not progress, leave=False)
    for chunk in read_chunks(_files(recipe, labels.table), wanted, recipe.data.chunk_rows, report):
        good = np.ones(len(chunk), bool)
        ids, values = _look_up(chunk, labels, bench, report, good)
        del values["query_key"]
        _report_unknown("item", "label", chunk, labels.item_id, ids["item_id"], values["item_row"], report, good)
        _report_unknown("query", "label", chunk, labels.query_id, ids["query_id"], values["q_row"], report, good)
        values["grade"] = columns.numbers(chunk, labels.grade, report, good, required=True, minimum=0)
        weight = (
            columns.numbers(chunk, labels.weight, report, good, minimum=0) if labels.weight else np.ones(len(chunk))
        )
        values["weight"] = np.where(np.isnan(weight), 1.0, weight)
        place = _append(bench, "labels", chunk, values, good, place)
        report.read["label rows"] += len(chunk)
        bar.update(len(chunk))
    bar.close()
    if not report.read["label rows"]:
        raise DataError(f"{_files(recipe, labels.table)[0]}: holds no rows; expected a judgement in each")
    _drop_repeated(bench, report)


def load_log(
    recipe: Recipe,
    logs: Logs,
    bench: Workbench,
    report: Report,
    progress: bool,
    table: str,
    *,
    labels: bool,
    behaviour: bool,
) -> None:
    """Fills ``TABLE(item_row, query_key, ts, position, click, cart, purchase, …)`` from a log of impressions.

    ``query_key`` is that of the table ``queries``, or the log's own id for a query that is not there.

    Args:
        recipe: the recipe.
        logs: the log's columns.
        bench: where the table goes; ``items`` and ``queries`` are there.
        report: takes bad rows.
        progress: whether to show a progress bar.
        table: the table's name.
        labels: whether labels are made of it: then a row of an unknown query is a bad row.
        behaviour: whether it tells past behaviour, for which rows of unknown queries are kept: any traffic counts.
    """
    bench.con.execute(
        f"CREATE TABLE {table} (item_row INTEGER, query_key VARCHAR, ts DOUBLE, position DOUBLE, click DOUBLE, "
        "cart DOUBLE, purchase DOUBLE, propensity DOUBLE, q_row BIGINT, place BIGINT, file VARCHAR, row BIGINT)"
    )
    optional = {"position": logs.position, "cart": logs.cart, "purchase": logs.purchase}
    if labels and logs.debias == "ipw":
        optional["propensity"] = logs.propensity
    wanted = [logs.query_id, logs.item_id, logs.timestamp, logs.click, *filter(None, optional.values())]
    place = 0
    bar = tqdm(desc="log", unit="row", disable=not progress, leave=False)
    for chunk in read_chunks(_files(recipe, logs.table), wanted, recipe.data.chunk_rows, report):
        good = np.ones(len(chunk), bool)
        ids, values = _look_up(chunk, logs, bench, report, good)
        _report_unknown("item", "log row", chunk, logs.item_id, ids["item_id"], values["item_row"], report, good)
        values["ts"] = columns.times(chunk, logs.timestamp, report, good, required=True)
        values["click"] = columns.numbers(chunk, logs.click, report, good, required=True, minimum=0)
        for name, column in optional.items():
            if column is not None:
                limits = {"minimum": 1e-6, "maximum": 1.0, "required": True} if name == "propensity" else {"minimum": 0}
                values[name] = columns.numbers(chunk, column, report, good, **limits)  # type: ignore[arg-type]
        if labels:
            kept = good.copy() if behaviour else good
            _report_unknown("query", "log row", chunk, logs.query_id, ids["query_id"], values["q_row"], report, kept)
        place = _append(bench, table, chunk, values, good, place)
        report.read[f"{table.replace('_', ' ')} rows"] += len(chunk)
        bar.update(len(chunk))
    bar.close()


def labels_from_log(logs: Logs, bench: Workbench, table: str, report: Report, by_time: bool) -> None:
    """Folds a log into the table ``labels``: the highest grade of an item's events in a list.

    A list with a time takes only events at its time or later: earlier ones are its past behaviour, and no event may be
    label and feature both. With a split by time, it takes none at or after the first list of a later split either: that
    future is what is tested. Both are counted.

    With ``debias: ipw`` an item that was clicked weighs the mean inverse propensity over the impressions in which it
    was, clipped at ``max_weight`` (Joachims et al., "Unbiased learning-to-rank with biased feedback", 2017); others 1.

    Args:
        logs: grades and weights.
        bench: has ``queries``, and the log.
        table: the log's name.
        report: takes the counts.
        by_time: whether the lists are split by time.
    """
    first = dict(bench.rows("SELECT split, min(ts) FROM queries GROUP BY split")) if by_time else {}
    ends = [
        f"WHEN '{split}' THEN {min(times)!r}"
        for place, split in enumerate(SPLITS)
        if (times := [first[later] for later in SPLITS[place + 1 :] if later in first])
    ]
    end = f"CASE split {' '.join(ends)} END" if ends else "NULL"
    bench.con.execute(
        f"CREATE VIEW label_events AS SELECT l.*, query_id, q.ts AS list_ts, coalesce(l.ts < q.ts, false) AS early, "
        f"coalesce(l.ts >= {end}, false) AS late FROM {table} l JOIN queries q USING (q_row)"
    )
    for kind, cause in (
        ("early", "log row before its list's time: no label"),
        ("late", "log row in a later split's time: no label"),
    ):
        query = "SELECT file, row, query_id, ts, list_ts FROM label_events WHERE"
        found, count = bench.first(f"{query} {kind} ORDER BY place")
        if count:
            file, row, query_id, ts, list_ts = found
            when = f"is from {ts:.15g}, its list from {list_ts:.15g} (seconds since 1970)"
            report.note(cause, f'{file}: row {row}: an event of query "{query_id}" {when}', count)
    grades = [f"CASE WHEN {event} > 0 THEN {grade} ELSE 0 END" for event, grade in logs.grades.items()]
    any_event = " OR ".join(f"{event} > 0" for event in logs.grades)
    weight = f"avg(least({logs.max_weight}, 1 / propensity)) FILTER (WHERE {any_event})"
    bench.con.execute(
        f"CREATE TABLE labels AS SELECT q_row, item_row, max(greatest({', '.join(grades)}, 0))::FLOAT AS grade, "
        f"coalesce({weight if logs.debias == 'ipw' else '1'}, 1)::FLOAT AS weight, min(place) AS place "
        "FROM label_events WHERE NOT early AND NOT late GROUP BY q_row, item_row"
    )


def _files(recipe: Recipe, table: Path | list[Path]) -> list[Path]:
    return [recipe.path(path) for path in ([table] if isinstance(table, Path) else table)]


def _look_up(
    chunk: Chunk, config: Judgements | Logs, bench: Workbench, report: Report, good: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A chunk's ids, and what they stand for: ``item_row`` and ``q_row`` (−1 where unknown), and ``query_key``."""
    ids = {
        "item_id": columns.ids(chunk, config.item_id, report, good),
        "query_id": columns.ids(chunk, config.query_id, report, good),
    }
    # Two joins of the chunk alone: the engine then holds the chunk in memory, not the table.
    items = bench.arrays(
        "SELECT item_row FROM chunk LEFT JOIN items USING (item_id) ORDER BY place",
        {"item_id": ids["item_id"], "place": np.arange(len(chunk))},
    )
    queries = bench.arrays(
        "SELECT q_row, coalesce(query_key, query_id) AS query_key FROM chunk LEFT JOIN queries USING (query_id) "
        "ORDER BY place",
        {"query_id": ids["query_id"], "place": np.arange(len(chunk))},
    )
    rows = {"item_row": items["item_row"], "q_row": queries["q_row"]}
    filled = {name: np.ma.filled(found, -1).astype(np.int64) for name, found in rows.items()}
    return ids, {**filled, "query_key": np.asarray(queries["query_key"], object)}


def _report_unknown(
    kind: str, what: str, chunk: Chunk, column: str, ids: np.ndarray, rows: np.ndarray, report: Report, good: np.ndarray
) -> None:
    """Reports a chunk's ids of items or queries that have no row."""
    table = "items" if kind == "item" else "queries"
    missing = f"is not in the {table} table" + (", or was left out of it" if report.skipped else "")
    for i in np.flatnonzero((rows < 0) & good):
        message = f'{chunk.where(int(i), column)}: {kind} "{ids[i]}" {missing}; expected an id from there'
        report.bad_row(f"{what} for an unknown {kind}", message)
        good[i] = False


def _append(bench: Workbench, table: str, chunk: Chunk, values: Mapping[str, Any], good: np.ndarray, place: int) -> int:
    """Appends the good rows, numbered in the order of the table; returns the next number."""
    rows = {**values, "row": chunk.rows, "file": np.full(len(chunk), str(chunk.file), object)}
    kept = {name: array[good] for name, array in rows.items()}
    count = int(good.sum())
    bench.append(table, {**kept, "place": np.arange(place, place + count)})
    return place + count


def _drop_repeated(bench: Workbench, report: Report) -> None:
    """Keeps the first of the labels that one query gives one item."""
    repeated = (
        "SELECT place, query_id, item_id, l.file, l.row FROM labels l JOIN "
        "(SELECT q_row, item_row, min(place) AS first FROM labels GROUP BY q_row, item_row HAVING count(*) > 1) "
        "USING (q_row, item_row) "
        "JOIN queries USING (q_row) JOIN items USING (item_row) WHERE place > first ORDER BY place"
    )
    found, count = bench.first(repeated)
    if count:
        _, query, item, file, row = found
        message = f'{file}: row {row}: query "{query}" and item "{item}" are judged twice; expected one row a pair'
        report.bad_row("label given twice", message, count)
        bench.remove("labels", "place", f"SELECT place FROM ({repeated})")
