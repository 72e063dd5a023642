"""The catalogue: every item once, in an Arrow file that is mapped, not loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ID = "item_id"


def arrow_schema(item_columns: dict[str, str], snapshot_columns: Sequence[str]) -> pa.Schema:
    """The file's schema: id, raw columns (bytes or float32, null being missing), snapshot columns."""
    fields = [pa.field(ID, pa.string())]
    fields += [
        pa.field(name, pa.float32() if kind == "numeric" else pa.binary()) for name, kind in item_columns.items()
    ]
    return pa.schema(fields + [pa.field(name, pa.float32()) for name in snapshot_columns])


class Catalogue:
    """Items by row.

    Args:
        file: the Arrow IPC file that ``prepare`` wrote; None for a dataset without a catalogue.
    """

    def __init__(self, file: Path | None) -> None:
        self._reader: Any = pa.ipc.open_file(pa.memory_map(str(file))) if file is not None else None
        self._batches: list[Any] = []
        if self._reader is not None:
            self._batches = [self._reader.get_batch(i) for i in range(self._reader.num_record_batches)]
        self._starts = np.cumsum([0] + [len(batch) for batch in self._batches])
        self._ids: np.ndarray | None = None
        self._row_of: dict[str, int] | None = None

    def __len__(self) -> int:
        """Number of items."""
        return int(self._starts[-1])

    @property
    def columns(self) -> list[str]:
        """Raw and snapshot columns."""
        return [name for name in self._reader.schema.names if name != ID] if self._reader is not None else []

    @property
    def ids(self) -> np.ndarray:
        """Item ids by row: object array of str."""
        if self._ids is None:
            parts = [batch.column(ID).to_numpy(zero_copy_only=False) for batch in self._batches]
            self._ids = np.concatenate(parts) if parts else np.empty(0, object)
        return self._ids

    def row_of(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of items: int32, −1 where the catalogue lacks the id."""
        if self._row_of is None:
            self._row_of = {item: row for row, item in enumerate(self.ids)}
        return np.array([self._row_of.get(item, -1) for item in ids], np.int32)

    def rows(self, indices: Any, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Raw values of some items.

        Args:
            indices: rows ``[n]``, in any order.
            columns: which columns; default all.

        Returns:
            ``{column: [n]}``: object arrays of bytes (``b""`` missing), or float32 (NaN missing).
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"item rows must be in 0..{len(self) - 1}, got {indices.min()}..{indices.max()}")
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        out: dict[str, np.ndarray] = {}
        for name in columns if columns is not None else self.columns:
            values = None
            for number in np.unique(owner):
                mine = owner == number
                part = _to_numpy(
                    self._batches[number].column(name).take(pa.array(indices[mine] - self._starts[number]))
                )
                if values is None:
                    values = np.empty(len(indices), part.dtype)
                values[mine] = part
            out[name] = values if values is not None else np.empty(0, object)
        return out

    def batches(self, size: int, columns: Sequence[str] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """All items in order, ``size`` at a time; values as in ``rows``."""
        names = columns if columns is not None else self.columns
        for batch in self._batches:
            for start in range(0, len(batch), size):
                piece = batch.slice(start, size)
                yield {name: _to_numpy(piece.column(name)) for name in names}


def _to_numpy(array: pa.Array) -> np.ndarray:
    if pa.types.is_floating(array.type):
        return array.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return array.fill_null(b"").to_numpy(zero_copy_only=False)
