"""A dataset's own numbers and categories, one row a (query, item) pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

MOST_CATEGORIES = 254  # told apart; with the rest and missing they fill a byte, which is what LightGBM keeps


class PairColumns:
    """Slot features, the catalogue's numbers and categories, and the query's, as columns of numbers.

    All that the recipe declares, whether or not a ranker's towers read it; not the catalogue's snapshot columns, which
    hold what was known after the lists. A category is the number of its place among the most frequent ones, 0 the most
    frequent; all beyond ``MOST_CATEGORIES`` share the place after them, and so does one not seen before.

    Args:
        data: a ``Prepared`` dataset.
        split: what the categories of queries are learnt from; those of items are the catalogue's.

    Attributes:
        names: of the columns; ``features/3`` is the fourth of a wide one.
        categorical: bool ``[F]``: which of them hold categories.
    """

    def __init__(self, data: Any, split: str = "train") -> None:
        self.data, self.split = data, split
        self._query = _readable(data.query_columns)
        self._item = _readable(data.item_columns) if len(data.catalogue) else {}
        slots = [(name, None) if width == 1 else (name, width) for name, width in data.slot_columns.items()]
        self.names = [
            name if width is None else f"{name}/{place}" for name, width in slots for place in range(width or 1)
        ]
        self.names += [*self._item, *self._query]
        kinds = [*self._item.values(), *self._query.values()]
        categories = [kind == "categorical" for kind in kinds]
        self.categorical = np.array([False] * (len(self.names) - len(kinds)) + categories, bool)
        self._items: np.ndarray | None = None
        self._places: dict[str, dict[bytes, int]] = {}

    def of(self, split: str) -> np.ndarray:
        """The columns of a split's pairs: float32 ``[R, F]``, NaN where missing."""
        lists = self.data.lists(split)
        rows = len(lists.item_rows)
        parts = [np.asarray(lists.slots[name], np.float32).reshape(rows, -1) for name in self.data.slot_columns]
        if self._item:
            parts.append(self._of_items()[lists.item_rows])
        if self._query:
            by_query = [self._numbers(f"query {name}", kind, self._of_queries(name, split), self._of_queries(name))
                        for name, kind in self._query.items()]  # fmt: skip
            parts.append(np.repeat(np.stack(by_query, 1), np.diff(lists.offsets), axis=0))
        found = np.concatenate(parts, 1) if parts else np.empty((rows, 0), np.float32)
        return np.where(np.isfinite(found), found, np.float32(np.nan))

    def _of_items(self) -> np.ndarray:
        """The catalogue's columns, float32 ``[N, F]``; read once."""
        if self._items is None:
            columns = []
            for name, kind in self._item.items():
                batches = [batch[name] for batch in self.data.catalogue.batches(65_536, columns=[name])]
                values = np.concatenate(batches)
                columns.append(self._numbers(f"item {name}", kind, values, values))
            self._items = np.stack(columns, 1)
        return self._items

    def _of_queries(self, name: str, split: str | None = None) -> np.ndarray:
        return self.data.lists(split or self.split).queries[name]

    def _numbers(self, key: str, kind: str, values: np.ndarray, known: Iterable[bytes]) -> np.ndarray:
        """Values as float32 ``[n]``; categories by their place among the known."""
        if kind == "numeric":
            return np.asarray(values, np.float32)
        if key not in self._places:
            counts = Counter(value for value in known if value)
            most = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_CATEGORIES]
            self._places[key] = {value: place for place, value in enumerate(most)}
        places = self._places[key]
        return np.array([places.get(value, len(places)) if value else np.nan for value in values], np.float32)


def _readable(columns: dict[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in columns.items() if kind in ("numeric", "categorical")}
