"""Lists on disk (ELWC TFRecords) and in memory (flat arrays)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.data.example_lists import ExampleListWithContext, read_records, serialize_list, write_record

SHARD_LISTS = 50_000


@dataclass(frozen=True)
class Lists:
    """All lists of a split, in flat arrays: list q's values stand at ``offsets[q]`` to ``offsets[q + 1]``.

    Attributes:
        query_ids: object array of str ``[Q]``.
        queries: raw query columns ``{column: [Q]}``.
        offsets: int64 ``[Q + 1]``.
        item_rows: catalogue rows, int32 ``[R]``; −1 in a dataset without a catalogue.
        labels: float32 ``[R]``.
        weights: float32 ``[R]``.
        slots: slot features ``{column: float32 [R] or [R, width]}``; NaN is missing.
    """

    query_ids: np.ndarray
    queries: dict[str, np.ndarray]
    offsets: np.ndarray
    item_rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    slots: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Number of lists."""
        return len(self.query_ids)

    def of(self, number: int) -> slice:
        """Where list ``number``'s values stand."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def digest(self) -> str:
        """SHA-256 that changes with anything in the lists."""
        digest = hashlib.sha256()
        for text in (self.query_ids, *self.queries.values()):
            digest.update(repr(text.tolist()).encode())
        for array in (self.offsets, self.item_rows, self.labels, self.weights, *self.slots.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class ListWriter:
    """Writes the lists of one split into shards, and counts them.

    Args:
        folder: the dataset's ``lists`` folder.
        split: name of the split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.lists = self.rows = self.longest = 0
        self._file: Any = None

    def write(
        self,
        query_id: str,
        query: Mapping[str, Any],
        item_rows: Any,
        labels: Any,
        weights: Any,
        slots: Mapping[str, Any],
    ) -> None:
        """Appends one list.

        Args:
            query_id: the query's id.
            query: raw query columns: bytes, or a float.
            item_rows: whole numbers ``[n]``.
            labels: ``[n]``.
            weights: ``[n]``.
            slots: slot features, ``[n]`` or ``[n, width]``.
        """
        if self.lists % SHARD_LISTS == 0:
            self.close()
            file = self.folder / f"{self.split}-{self.lists // SHARD_LISTS:05d}.tfrecord"
            self._file = open(file, "wb")  # noqa: SIM115 - closed with the writer
        rows = np.asarray(item_rows, np.int64).tolist()
        columns = [np.asarray(values, np.float32).tolist() for values in (labels, weights, *slots.values())]
        names = ["label", "weight", *slots]
        examples = (
            {"item_row": row, **dict(zip(names, values, strict=True))}
            for row, values in zip(rows, zip(*columns, strict=True), strict=True)
        )
        write_record(self._file, serialize_list({"query_id": query_id.encode(), **query}, examples))
        self.lists += 1
        self.rows += len(rows)
        self.longest = max(self.longest, len(rows))

    def close(self) -> None:
        """Closes the last shard."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def counts(self) -> dict[str, int]:
        """What ``meta.json`` says of the split."""
        return {"lists": self.lists, "rows": self.rows, "max_list_size": self.longest}


def read_lists_of(
    folder: Path,
    split: str,
    counts: Mapping[str, int],
    query_columns: Mapping[str, str],
    slot_columns: Mapping[str, int],
) -> Lists:
    """Reads a split's shards into memory: some 20 bytes a row and 4 a slot feature."""
    total, rows = counts["lists"], counts["rows"]
    query_ids = np.empty(total, object)
    queries = {
        name: np.full(total, np.nan, np.float32) if kind == "numeric" else np.full(total, b"", object)
        for name, kind in query_columns.items()
    }
    offsets = np.zeros(total + 1, np.int64)
    item_rows, labels, weights = np.full(rows, -1, np.int32), np.zeros(rows, np.float32), np.ones(rows, np.float32)
    slots = {
        name: np.full(rows if width == 1 else (rows, width), np.nan, np.float32) for name, width in slot_columns.items()
    }
    q = r = 0
    for shard in sorted(folder.glob(f"{split}-*.tfrecord")):
        for record in read_records(shard):
            message = ExampleListWithContext.FromString(record)
            context = message.context.features.feature
            query_ids[q] = context["query_id"].bytes_list.value[0].decode()
            for name, kind in query_columns.items():
                if name in context:
                    value = context[name]
                    queries[name][q] = value.float_list.value[0] if kind == "numeric" else value.bytes_list.value[0]
            for example in message.examples:
                feature = example.features.feature
                item_rows[r] = feature["item_row"].int64_list.value[0]
                labels[r] = feature["label"].float_list.value[0]
                weights[r] = feature["weight"].float_list.value[0]
                for name, values in slots.items():
                    found = feature[name].float_list.value
                    values[r] = found[0] if values.ndim == 1 else found
                r += 1
            q += 1
            offsets[q] = r
    if q != total or r != rows:
        raise ValueError(f"{folder}: split {split} has {q} lists and {r} rows, and meta.json says {total} and {rows}")
    return Lists(query_ids, queries, offsets, item_rows, labels, weights, slots)
