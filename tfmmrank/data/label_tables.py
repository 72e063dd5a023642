"""Judgements and behaviour logs to one table of labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data import columns
from tfmmrank.data.errors import Report
from tfmmrank.data.tables import Chunk, read_chunks
from tfmmrank.data.workbench import Workbench
from tfmmrank.schema import Judgements, Logs, Recipe

MAX_IPW = 10.0  # inverse propensities above this are clipped: a few would outweigh all others


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
        values = _known_ids(chunk, labels, bench, report, good, "label")
        values["grade"] = columns.numbers(chunk, labels.grade, report, good, required=True, minimum=0)
        weight = (
            columns.numbers(chunk, labels.weight, report, good, minimum=0) if labels.weight else np.ones(len(chunk))
        )
        values["weight"] = np.where(np.isnan(weight), 1.0, weight)
        place = _append(bench, "labels", chunk, values, good, place)
        bar.update(len(chunk))
    bar.close()
    report.read["label rows"] = place
    _drop_repeated(bench, report)


def load_log(
    recipe: Recipe,
    logs: Logs,
    bench: Workbench,
    report: Report,
    progress: bool,
    table: str = "log",
    labels: bool = False,
) -> None:
    """Fills ``log(item_row, query_id, ts, position, click, cart, purchase)`` from a log of impressions.

    Args:
        recipe: the recipe.
        logs: the log's columns.
        bench: where the table goes; ``items`` and ``queries`` are there.
        report: takes bad rows.
        progress: whether to show a progress bar.
        table: the table's name.
        labels: whether labels are made of it: then its queries must be known. A log that only tells past behaviour may
            hold any traffic.
    """
    bench.con.execute(
        f"CREATE TABLE {table} (item_row INTEGER, query_id VARCHAR, ts DOUBLE, position DOUBLE, click DOUBLE, "
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
        values = _known_ids(chunk, logs, bench, report, good, "log row", queries=labels)
        values["ts"] = columns.times(chunk, logs.timestamp, report, good, required=True)
        values["click"] = columns.numbers(chunk, logs.click, report, good, required=True, minimum=0)
        for name, column in optional.items():
            if column is not None:
                limits = {"minimum": 1e-6, "maximum": 1.0, "required": True} if name == "propensity" else {"minimum": 0}
                values[name] = columns.numbers(chunk, column, report, good, **limits)  # type: ignore[arg-type]
        place = _append(bench, table, chunk, values, good, place)
        bar.update(len(chunk))
    bar.close()
    report.read["log rows"] = place


def labels_from_log(logs: Logs, bench: Workbench, table: str) -> None:
    """Folds a log into the table ``labels``: the highest grade of an item's events in a list.

    With ``debias: ipw`` an item that was clicked weighs the mean inverse propensity over the impressions in which it
    was, clipped at ``MAX_IPW`` (Joachims et al., "Unbiased learning-to-rank with biased feedback", 2017); others 1.
    """
    events = [f"CASE WHEN {event} > 0 THEN {grade} ELSE 0 END" for event, grade in logs.grades.items()]
    any_event = " OR ".join(f"{event} > 0" for event in logs.grades)
    weight = f"avg(least({MAX_IPW}, 1 / propensity)) FILTER (WHERE {any_event})" if logs.debias == "ipw" else "1"
    bench.con.execute(
        f"CREATE TABLE labels AS SELECT q_row, item_row, max(greatest({', '.join(events)}, 0))::FLOAT AS grade, "
        f"coalesce({weight}, 1)::FLOAT AS weight, min(place) AS place FROM {table} GROUP BY q_row, item_row"
    )


def _files(recipe: Recipe, table: Path | list[Path]) -> list[Path]:
    return [recipe.path(path) for path in ([table] if isinstance(table, Path) else table)]


def _known_ids(
    chunk: Chunk,
    config: Judgements | Logs,
    bench: Workbench,
    report: Report,
    good: np.ndarray,
    what: str,
    queries: bool = True,
) -> dict[str, np.ndarray]:
    """Rows of a chunk's items and queries: ``item_row``, ``q_row`` and ``query_id``; unknown ones are reported."""
    items, query_ids = (
        columns.ids(chunk, config.item_id, report, good),
        columns.ids(chunk, config.query_id, report, good),
    )
    found = bench.arrays(
        "SELECT i.item_row, q.q_row FROM chunk LEFT JOIN items i USING (item_id) "
        "LEFT JOIN queries q ON q.query_id = chunk.query_id ORDER BY chunk.at",
        {"item_id": items, "query_id": query_ids, "at": np.arange(len(chunk))},
    )
    out = {name: np.ma.filled(values, -1).astype(np.int64) for name, values in found.items()}
    checks = [("item", "item_row", config.item_id, items)]
    checks += [("query", "q_row", config.query_id, query_ids)] if queries else []
    for kind, name, column, ids in checks:
        for i in np.flatnonzero((out[name] < 0) & good):
            table = "items" if kind == "item" else "queries"
            where = chunk.where(int(i), column)
            message = f'{where}: {kind} "{ids[i]}" is not in the {table} table; expected an id from there'
            report.bad_row(f"{what} for an unknown {kind}", message)
            good[i] = False
    return {**out, "query_id": query_ids}


def _append(bench: Workbench, table: str, chunk: Chunk, values: Mapping[str, Any], good: np.ndarray, place: int) -> int:
    """Appends the good rows, numbered in the order of the table; returns the next number."""
    rows = {**values, "row": chunk.rows, "file": np.full(len(chunk), str(chunk.file), object)}
    if table == "labels":
        del rows["query_id"]
    kept = {name: array[good] for name, array in rows.items()}
    count = int(good.sum())
    bench.append(table, {**kept, "place": np.arange(place, place + count)})
    return place + count


def _drop_repeated(bench: Workbench, report: Report) -> None:
    """Keeps the first of the labels that one query gives one item."""
    repeated = bench.rows(
        "SELECT place, query_id, item_id, l.file, l.row FROM labels l JOIN "
        "(SELECT q_row, item_row, min(place) AS first FROM labels GROUP BY q_row, item_row HAVING count(*) > 1) "
        "USING (q_row, item_row) "
        "JOIN queries USING (q_row) JOIN items USING (item_row) WHERE place > first ORDER BY place"
    )
    for _, query, item, file, row in repeated:
        message = f'{file}: row {row}: query "{query}" and item "{item}" are judged twice; expected one row a pair'
        report.bad_row("label given twice", message)
    if repeated:
        gone = {"place": [place for place, *_ in repeated]}
        bench.rows("DELETE FROM labels WHERE place IN (SELECT place FROM chunk)", gone)
