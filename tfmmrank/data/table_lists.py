"""The label table, sorted by query, to lists on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.errors import Report
from tfmmrank.data.lists import ListWriter
from tfmmrank.data.workbench import Workbench

_STREAM_ROWS = 32_768


def write_lists(
    bench: Workbench,
    query_columns: Mapping[str, str],
    features: list[str],
    writers: Mapping[str, ListWriter],
    report: Report,
    progress: bool,
    expected: str = "at least one",
) -> None:
    """Writes one list for each query that has labels; a query without any is a bad row.

    Lists stand in the order of the queries table, a list's items in that of the label table.

    Args:
        bench: has ``queries`` and ``labels``, and with features ``pair_behaviour``.
        query_columns: the query's raw columns and their kinds.
        features: slot features, columns of ``pair_behaviour``.
        writers: by split.
        report: takes queries without labels, and notes lists of one grade.
        progress: whether to show a progress bar.
        expected: what a query without labels lacks, in words.
    """
    found, count = bench.first("SELECT query_id, file, row FROM queries ANTI JOIN labels USING (q_row) ORDER BY q_row")
    if count:
        query, file, row = found
        report.bad_row("empty list", f'{file}: row {row}: query "{query}" has no label; expected {expected}', count)
    chosen = ", ".join(
        ["l.q_row", "l.item_row", "l.grade", "l.weight", *[f"b.{name}::FLOAT AS {name}" for name in features]]
    )
    join = "LEFT JOIN pair_behaviour b ON b.list_no = l.q_row AND b.item_row = l.item_row" if features else ""
    stream = bench.stream(f"SELECT {chosen} FROM labels l {join} ORDER BY l.q_row, l.place", _STREAM_ROWS)
    total = bench.rows("SELECT count(DISTINCT q_row) FROM labels")[0][0]
    with tqdm(total=total, desc="lists", unit="list", disable=not progress, leave=False) as bar:
        for rows in _whole_lists(stream):
            starts = np.flatnonzero(np.diff(rows["q_row"], prepend=-1))
            queries = _queries(bench, rows["q_row"][starts], query_columns)
            for at, end in zip(starts, np.append(starts[1:], len(rows["q_row"])), strict=True):
                query_id, split, query = queries[int(rows["q_row"][at])]
                grades = rows["grade"][at:end]
                note_one_grade(query_id, grades, report)
                slots = {name: rows[name][at:end] for name in features}
                writers[split].write(query_id, query, rows["item_row"][at:end], grades, rows["weight"][at:end], slots)
            bar.update(len(starts))


def note_one_grade(query_id: str, grades: np.ndarray, report: Report) -> None:
    """Counts a list whose labels are all alike: it teaches nothing, and stays for evaluation to count."""
    if (grades == grades[0]).all():
        report.note("list with one grade only", f'list "{query_id}": every grade is {grades[0]:g}')


def _whole_lists(stream: Any) -> Iterator[dict[str, np.ndarray]]:
    """Record batches ordered by ``q_row`` as arrays, cut so that no list is parted."""
    waiting: dict[str, np.ndarray] | None = None
    for batch in stream:
        columns = zip(batch.schema.names, batch.columns, strict=True)
        rows = {name: np.asarray(column.to_numpy(zero_copy_only=False)) for name, column in columns}
        if waiting is not None:
            rows = {name: np.concatenate([waiting[name], values]) for name, values in rows.items()}
        if not len(rows["q_row"]):
            continue
        cut = int(np.searchsorted(rows["q_row"], rows["q_row"][-1]))  # the last list may go on in the next batch
        if cut:
            yield {name: values[:cut] for name, values in rows.items()}
        waiting = {name: values[cut:] for name, values in rows.items()}
    if waiting is not None:
        yield waiting


def _queries(
    bench: Workbench, wanted: np.ndarray, columns: Mapping[str, str]
) -> dict[int, tuple[str, str, dict[str, Any]]]:
    """Id, split and raw columns of some queries by their rows."""
    names = "".join(f", column_{place}" for place in range(len(columns)))
    query = f"SELECT q_row, query_id, split{names} FROM queries WHERE q_row BETWEEN {wanted[0]} AND {wanted[-1]}"
    out = {}
    for row, query_id, split, *values in bench.rows(query):
        raw: dict[str, Any] = {}
        for (name, kind), value in zip(columns.items(), values, strict=True):
            if kind == "numeric":
                raw[name] = float("nan") if value is None else float(value)
            else:
                raw[name] = (value or "").encode()
        out[row] = query_id, split, raw
    return out
