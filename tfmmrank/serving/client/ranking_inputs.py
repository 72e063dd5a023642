"""Queries and their candidates as the arrays that ``rank`` and ``rank_features`` take, in parts where they are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmmrank.registry import nearest
from tfmmrank.serving.client.answers import Signature
from tfmmrank.serving.client.raw_values import raw_array, refuse_picture_paths, table_columns


class Part(NamedTuple):
    """The candidates that one request asks for: a span of the lists that reach into it."""

    rows: list[int]
    span: slice


def split_lists(lengths: Sequence[int], most: int) -> list[Part]:
    """Cuts B lists into parts of at most ``most`` candidates a list, of nearly equal size; empty lists are in none.

    Args:
        lengths: candidates by list ``[B]``.
        most: candidates of a list in one request.
    """
    longest = max(lengths)
    size = -(-longest // -(-longest // most))  # 2,001 by 1,000: three parts of 667, not one of a single candidate
    return [
        Part([b for b, length in enumerate(lengths) if length > start], slice(start, start + size))
        for start in range(0, longest, size)
    ]


def check_lists(queries: Sequence[str], item_ids: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless there are as many lists as queries, and TypeError for a str in a list's place."""
    if len(queries) != len(item_ids):
        raise ValueError(f"there are {len(queries)} queries and {len(item_ids)} lists of item ids")
    for ids in item_ids:
        if isinstance(ids, (str, bytes)):
            raise TypeError(f"item_ids is {ids!r}; expected a sequence of ids, such as [{ids!r}]")


def query_inputs(
    signature: Signature, queries: Sequence[str | bytes], context: Mapping[str, Sequence[Any]]
) -> dict[str, np.ndarray]:
    """The query columns that a signature reads, ``[B]``; those left out are missing.

    Raises:
        ValueError: for a column that the model does not read, one value too few, or one of the wrong kind.
    """
    specs = {name: spec for name, spec in signature.inputs.items() if len(spec.shape) == 1 and name != "num_items"}
    _refuse_unknown(context, {name: spec for name, spec in specs.items() if name != "query"}, "context column")
    given = {"query": queries, **context}
    for name, values in given.items():
        if len(values) != len(queries):
            raise ValueError(f'column "{name}" has {len(values)} values; expected {len(queries)}, one a query')
    nothing = [None] * len(queries)
    return {name: raw_array(name, given.get(name, nothing), spec.dtype, ()) for name, spec in specs.items()}


def rank_inputs(
    columns: Mapping[str, np.ndarray], item_ids: Sequence[Sequence[str]], part: Part
) -> dict[str, np.ndarray]:
    """What ``rank`` takes for a part: its lists' query columns, and ids padded with ``""``.

    Args:
        columns: query columns ``[B]``.
        item_ids: ids by list.
        part: which lists, and which of their candidates.
    """
    lists = [item_ids[b][part.span] for b in part.rows]
    padded = np.full((len(lists), max(len(ids) for ids in lists)), b"", object)
    for row, ids in enumerate(lists):
        padded[row, : len(ids)] = [item if isinstance(item, bytes) else str(item).encode("utf-8") for item in ids]
    num_items = np.array([len(ids) for ids in lists], np.int32)
    return {**{name: v[part.rows] for name, v in columns.items()}, "item_ids": padded, "num_items": num_items}


def item_table(items: Any) -> tuple[list[str], dict[str, list[Any]]]:
    """Raw items as names, from ``item_id`` or else their places, and values by column."""
    columns, count = table_columns(items)
    ids = [str(value) for value in columns.pop("item_id", range(count))]
    for name, values in columns.items():
        refuse_picture_paths(name, values)
    return ids, columns


def feature_inputs(signature: Signature, columns: Mapping[str, Sequence[Any]], count: int) -> dict[str, np.ndarray]:
    """What ``rank_features`` takes for one list of ``count`` raw items, without the query's columns.

    Raises:
        ValueError: for a column that the model does not read, or a value of the wrong kind.
    """
    places = {name: spec for name, spec in signature.inputs.items() if len(spec.shape) > 1}
    _refuse_unknown(columns, places, "item column")
    inputs = {
        name: raw_array(name, columns.get(name, [None] * count), spec.dtype, spec.shape[2:])[None]
        for name, spec in places.items()
    }
    return {**inputs, "num_items": np.array([count], np.int32)}


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            hint = nearest(name, list(known))
            raise ValueError(f'the model reads no {what} "{name}"{hint}; it reads: {", ".join(known) or "none"}')
