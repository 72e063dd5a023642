"""Parts of the queries that a mean hides: by language, by whether the answer has a picture, by whether it is new."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmmrank.evaluation.bm25 import CHINESE

_ROWS_AT_ONCE = 1024


def query_slices(data: Any, split: str) -> dict[str, np.ndarray]:
    """Slices that the dataset's columns allow.

    A query's *best items* are those of its highest grade, if that is positive. Slices come in groups that part the
    queries; a group with one empty side tells nothing and is left out.

    Returns:
        bool ``[Q]`` by title.
    """
    lists = data.lists(split)
    groups: list[list[tuple[str, np.ndarray]]] = []
    if data.query_columns.get("query") == "text":
        chinese = np.array([bool(CHINESE.search(query.decode("utf-8"))) for query in lists.queries["query"]], bool)
        groups.append([("query in Chinese", chinese), ("query in other scripts", ~chinese)])
    best = best_items(lists)
    answered = _any(lists, best)
    images = [name for name, kind in data.item_columns.items() if kind == "image"]
    if images and len(data.catalogue):
        bare = _any(lists, best & ~_has_picture(data, images, lists.item_rows, best))
        groups.append(
            [("every best item has a picture", answered & ~bare), ("a best item has no picture", answered & bare)]
        )
    shown = lists.slots.get("past_impressions")
    if shown is not None:
        new = _any(lists, best & ~(np.nan_to_num(shown) > 0))
        groups.append([("every best item was shown before", answered & ~new), ("a best item was never shown", new)])
    return {name: mask for group in groups if all(mask.any() for _, mask in group) for name, mask in group}


def best_items(lists: Any) -> np.ndarray:
    """Which rows bear their list's highest grade, where that is positive: bool ``[R]``."""
    lengths = np.diff(lists.offsets)
    top = np.zeros(len(lists), np.float32)
    np.maximum.at(top, np.repeat(np.arange(len(lists)), lengths), lists.labels)
    return (lists.labels > 0) & (lists.labels == np.repeat(top, lengths))


def _any(lists: Any, rows: np.ndarray) -> np.ndarray:
    """Which lists have a true row: bool ``[Q]``."""
    number = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))
    return np.bincount(number[rows], minlength=len(lists)) > 0


def _has_picture(data: Any, images: list[str], item_rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Whether the item of a row has a picture: bool ``[R]``, looked up only ``where`` asked."""
    distinct = np.unique(item_rows[where])
    with_picture = np.zeros(len(data.catalogue), bool)
    for start in range(0, len(distinct), _ROWS_AT_ONCE):
        rows = distinct[start : start + _ROWS_AT_ONCE]
        for values in data.catalogue.rows(rows, columns=images).values():
            with_picture[rows] |= np.array([len(value) > 0 for value in values], bool)
    return with_picture[item_rows]
