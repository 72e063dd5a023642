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
from tfmmrank.data.workbench import Workbench, quoted
from tfmmrank.schema import Queries, Recipe


def load_queries(recipe: Recipe, bench: Workbench, report: Report) -> None:
    """Fills the table ``queries(q_row, query_id, norm, split, ts, file, row, <query columns>)``.

    Raises:
        DataError: for bad rows and repeated ids, and when one normalised text stands in two splits.
    """
    data, queries = recipe.data, recipe.data.queries
    assert queries is not None
    kinds = data.query_columns
    declared = "".join(
        f", {quoted(name)} {'FLOAT' if kind == 'numeric' else 'VARCHAR'}" for name, kind in kinds.items()
    )
    bench.con.execute(
        "CREATE TABLE queries (q_row BIGINT, query_id VARCHAR, norm VARCHAR, split VARCHAR, ts DOUBLE, file VARCHAR, "
        f"row BIGINT{declared})"
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
    report.read["queries"] = bench.rows("SELECT count(*) FROM queries")[0][0]


def _values(chunk: Chunk, recipe: Recipe, queries: Queries, report: Report, good: np.ndarray) -> dict[str, Any]:
    """One chunk's columns of the table ``queries``."""
    split = recipe.data.split
    values: dict[str, Any] = {"query_id": columns.ids(chunk, queries.id, report, good)}
    for name, kind in recipe.data.query_columns.items():
        read = columns.numbers if kind == "numeric" else columns.texts
        values[name] = read(chunk, str(queries.text) if name == "query" else name, report, good)
    values["ts"] = np.full(len(chunk), np.nan)
    if queries.timestamp:
        values["ts"] = columns.times(chunk, queries.timestamp, report, good, required=split.by == "time")
    texts = values.get("query", np.full(len(chunk), "", object))
    norms = [normalize_query(text) for text in texts]
    if split.by == "column":
        values["split"] = _split_column(chunk, str(queries.split), report, good)
    else:  # a query without text is parted by its id; a split by time comes once all are read
        keys = [norm or query_id for norm, query_id in zip(norms, values["query_id"], strict=True)]
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
    repeated = bench.rows(
        "SELECT q_row, query_id, file, row, first FROM queries JOIN (SELECT query_id, min(q_row) AS first_row, "
        "arg_min(row, q_row) AS first FROM queries GROUP BY query_id HAVING count(*) > 1) USING (query_id) "
        "WHERE q_row > first_row ORDER BY q_row"
    )
    for _, query, file, row, first in repeated:
        where = f'{file}: row {row}: column "{column}"'
        message = f'{where}: "{query}" already stands in row {first}; expected ids that are unique'
        report.bad_row("duplicate query id", message)
    if repeated:
        gone = {"q_row": [row for row, *_ in repeated]}
        bench.rows("DELETE FROM queries WHERE q_row IN (SELECT q_row FROM chunk)", gone)
