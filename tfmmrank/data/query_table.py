"""The queries table, and which split each query belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data import columns
from tfmmrank.data.errors import Report
from tfmmrank.data.splits import SPLITS, refuse_leaks, split_by_text, split_by_time
from tfmmrank.data.tables import Chunk, read_chunks
from tfmmrank.data.text import normalize_query
from tfmmrank.data.workbench import Workbench
from tfmmrank.schema import Queries, Recipe


def load_queries(recipe: Recipe, bench: Workbench, report: Report) -> None:
    """Fills the table ``queries(q_row, query_id, norm, split, ts, file, row, column_0, column_1, …, query_key)``.

    ``query_key`` is the same for all queries of one normalised text: the id of the first of them; a query without text
    has its own. ``column_0`` and on hold the raw query columns in the recipe's order, under names that meet no other.

    Raises:
        DataError: for bad rows and repeated ids, and when one normalised text stands in two splits.
    """
    data, queries = recipe.data, recipe.data.queries
    assert queries is not None
    kinds = data.query_columns
    declared = "".join(
        f", column_{place} {'FLOAT' if kind == 'numeric' else 'VARCHAR'}" for place, kind in enumerate(kinds.values())
    )
    bench.con.execute(
        "CREATE TABLE queries (q_row BIGINT, query_id VARCHAR, norm VARCHAR, split VARCHAR, ts DOUBLE, "
        f"file VARCHAR, row BIGINT{declared})"
    )
    files = [recipe.path(path) for path in ([queries.table] if isinstance(queries.table, Path) else queries.table)]
    wanted = [queries.id, *filter(None, (queries.text, queries.timestamp)), *queries.numeric, *queries.categorical]
    if data.split.by == "column":
        wanted.append(str(queries.split))
    count = 0
    for chunk in read_chunks(files, wanted, data.chunk_rows, report):
        good = np.ones(len(chunk), bool)
        values = _values(chunk, recipe, queries, report, good)
        values["q_row"] = np.arange(count, count + len(chunk))
        count += len(chunk)
        bench.append("queries", {name: array[good] for name, array in values.items()})
    _drop_repeated(bench, queries.id, report)
    if data.split.by == "time":
        split_by_time(bench, data.split)
    refuse_leaks(bench, data.split, report)
    bench.replace(
        "queries",
        "SELECT q.*, coalesce(same.query_id, q.query_id) AS query_key FROM queries q LEFT JOIN "
        "(SELECT norm, arg_min(query_id, q_row) AS query_id FROM queries WHERE norm <> '' GROUP BY norm "
        "HAVING count(*) > 1) AS same ON q.norm = same.norm ORDER BY q_row",  # in order, some rows are found quickly
    )
    report.read["queries"] = count


def _values(chunk: Chunk, recipe: Recipe, queries: Queries, report: Report, good: np.ndarray) -> dict[str, Any]:
    """One chunk's columns of the table ``queries``."""
    split = recipe.data.split
    ids = columns.ids(chunk, queries.id, report, good)
    values: dict[str, Any] = {"query_id": ids}
    texts = np.full(len(chunk), "", object)
    for place, (name, kind) in enumerate(recipe.data.query_columns.items()):
        read = columns.numbers if kind == "numeric" else columns.texts
        values[f"column_{place}"] = read(chunk, str(queries.text) if name == "query" else name, report, good)
        texts = values[f"column_{place}"] if name == "query" else texts
    values["ts"] = np.full(len(chunk), np.nan)
    if queries.timestamp:
        values["ts"] = columns.times(chunk, queries.timestamp, report, good, required=split.by == "time")
    norms = [normalize_query(text) for text in texts]
    if split.by == "column":
        values["split"] = _split_column(chunk, str(queries.split), report, good)
    else:  # a query without text is parted by its id; a split by time comes once all are read
        keys = [norm or query_id for norm, query_id in zip(norms, ids, strict=True)]
        values["split"] = np.array([split_by_text(key, split) for key in keys], object)
    if queries.text:
        columns.note_empty(chunk, queries.text, texts, report, good)
    values["norm"] = np.array(norms, object)
    values["file"] = np.full(len(chunk), str(chunk.file), object)
    values["row"] = chunk.rows
    return values


def _split_column(chunk: Chunk, column: str, report: Report, good: np.ndarray) -> np.ndarray:
    values = np.array([value.strip().lower() for value in columns.texts(chunk, column, report, good)], object)
    for i in np.flatnonzero(~np.isin(values, SPLITS) & good):
        message = f'{chunk.where(int(i), column)}: found "{values[i]}"; expected one of {", ".join(SPLITS)}'
        report.bad_row("unknown split", message)
        good[i] = False
    return values


def _drop_repeated(bench: Workbench, column: str, report: Report) -> None:
    """Keeps the first of the queries that have one id."""
    repeated = (
        "SELECT q_row, query_id, file, row, first FROM queries JOIN (SELECT query_id, min(q_row) AS first_row, "
        "arg_min(row, q_row) AS first FROM queries GROUP BY query_id HAVING count(*) > 1) USING (query_id) "
        "WHERE q_row > first_row ORDER BY q_row"
    )
    found, count = bench.first(repeated)
    if count:
        _, query, file, row, first = found
        where = f'{file}: row {row}: column "{column}"'
        message = f'{where}: "{query}" already stands in row {first}; expected ids that are unique'
        report.bad_row("duplicate query id", message, count)
        bench.remove("queries", "q_row", f"SELECT q_row FROM ({repeated})")
