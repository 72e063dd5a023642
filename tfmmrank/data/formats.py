"""Lists in other systems' formats, both ways: LETOR's LibSVM files, TF-Ranking's ELWC and SequenceExample TFRecords."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmmrank.data.errors import Report
from tfmmrank.data.libsvm import read_libsvm, write_libsvm
from tfmmrank.data.ranking_records import read_records_lists, write_elwc, write_sequence_example
from tfmmrank.data.raw_list import RawList
from tfmmrank.registry import nearest
from tfmmrank.schema import ExampleLists, LibSVM

if TYPE_CHECKING:
    from tfmmrank.data.prepared import Prepared

__all__ = ["FORMATS", "RawList", "export_lists", "read_lists", "write_elwc", "write_libsvm", "write_sequence_example"]

#: By name, how lists are written.
FORMATS: dict[str, Callable[[Iterable[RawList], str | Path], None]] = {
    "elwc": write_elwc,
    "sequence_example": write_sequence_example,
    "libsvm": write_libsvm,
}


def read_lists(labels: LibSVM | ExampleLists, files: Sequence[Path], report: Report) -> Iterator[RawList]:
    """Reads lists, one in memory at a time.

    Args:
        labels: the recipe's labels: the kind of the files, and what to take from them.
        files: files of one split, in order.
        report: gets the lines, items and records that cannot be used.

    Raises:
        DataError: for a file that cannot be read, naming file, line or record, and what was expected.
    """
    if isinstance(labels, LibSVM):
        return read_libsvm(files, labels.num_features, report)
    return read_records_lists(labels, files, report)


def export_lists(
    prepared: Prepared, split: str, path: str | Path, format: str, columns: Sequence[str] | None = None
) -> dict[str, int]:
    """Writes a split of a prepared dataset in another system's format; the items' columns are repeated in every list.

    A feature is written for each slot column and each of ``columns``; ELWC and SequenceExample also get ``item_id``,
    and the query's columns as context.

    Args:
        prepared: the dataset.
        split: which lists.
        path: the file to write, replaced whole when there is one.
        format: ``elwc``, ``sequence_example`` or ``libsvm``.
        columns: catalogue columns; None takes all but pictures (for ``libsvm``: all numeric ones).

    Returns:
        ``{"lists": ..., "rows": ...}``.

    Raises:
        ValueError: for an unknown format or column.
        DataError: for an unknown split, or a column that the format cannot hold.
    """
    if format not in FORMATS:
        raise ValueError(f'format is "{format}"{nearest(format, list(FORMATS))}; expected one of {", ".join(FORMATS)}')
    kinds = prepared.item_columns
    if columns is None:
        fitting = ("numeric",) if format == "libsvm" else ("numeric", "text", "categorical")
        columns = [name for name, kind in kinds.items() if kind in fitting]
    for name in columns:
        if name not in kinds:
            raise ValueError(
                f'the catalogue has no column "{name}"{nearest(name, list(kinds))}; it has: {", ".join(kinds)}'
            )
    lists = prepared.lists(split)
    FORMATS[format](_raw_lists(prepared, lists, list(columns), with_ids=format != "libsvm"), path)
    return {"lists": len(lists), "rows": len(lists.labels)}


def _raw_lists(prepared: Prepared, lists: Any, columns: list[str], with_ids: bool) -> Iterator[RawList]:
    for number in range(len(lists)):
        span = lists.of(number)
        features = {name: values[span] for name, values in lists.slots.items()}
        rows = lists.item_rows[span]
        if prepared.meta["num_items"]:
            if with_ids:
                features["item_id"] = np.array([str(name).encode() for name in prepared.catalogue.ids[rows]], object)
            if columns:
                features.update(prepared.catalogue.rows(rows, columns))
        query = {
            name: value[number] if isinstance(value[number], bytes) else float(value[number])
            for name, value in lists.queries.items()
        }
        yield RawList(lists.query_ids[number], query, lists.labels[span], lists.weights[span], features)
