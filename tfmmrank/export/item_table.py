"""The item table: what the ranker knows of every catalogue item, looked up by id when serving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfmmrank.export.item_tokens import ItemTokens
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens

IDS_FILE = "item_ids.txt"
_BREAKS = ("\n", "\r")  # TensorFlow's line reader ends a line at one and drops the other


class ItemTable:
    """Tokens of the item towers and current values of the slot columns, by row; ids to rows.

    The matrices are variables and the ids an asset file, because constants would count against the 2 GB that a graph
    may have. Tokens stay float16 in memory; what is gathered for a request is brought back to the tower's own type.

    Args:
        ids: the items' ids, by row.
        tokens: by item tower; mapped files are not copied.
        slots: current values by slot column, float32 ``[N]`` or ``[N, width]``.
        folder: where to write the ids; must live until the SavedModel is written, as must the tokens.

    Raises:
        ValueError: for an id that holds a line break.
    """

    def __init__(
        self, ids: Iterable[str], tokens: Mapping[str, ItemTokens], slots: Mapping[str, np.ndarray], folder: Path
    ) -> None:
        _write_ids(ids, folder / IDS_FILE)
        with tf.device("CPU:0"):
            self.rows_of_ids = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(folder / IDS_FILE),
                    key_dtype=tf.string,
                    key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                    value_dtype=tf.int64,
                    value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                default_value=-1,
            )
            self._dtypes = {name: t.dtype for name, t in tokens.items()}
            self.variables = {name: Tokens(_variable(t.values), _variable(t.mask)) for name, t in tokens.items()}
            self._slots = {name: tf.Variable(values, trainable=False) for name, values in slots.items()}

    def rows(self, ids: Any) -> Any:
        """Ids, string of any shape, to rows, int64; −1 where unknown."""
        return self.rows_of_ids.lookup(ids)

    def tokens(self, rows: Any) -> dict[str, Tokens]:
        """Rows ``[B, L]`` to ``{item tower: Tokens [B, L, T, d]}``; those of row −1 are any item's."""
        rows = tf.maximum(rows, 0)
        return {
            name: Tokens(tf.cast(tf.gather(tokens.values, rows), self._dtypes[name]), tf.gather(tokens.mask, rows))
            for name, tokens in self.variables.items()
        }

    def slots(self, rows: Any) -> dict[str, Any]:
        """Rows ``[B, L]`` to current raw values of the slot columns, ``[B, L]`` or ``[B, L, width]``; −1 as above."""
        return {name: tf.gather(values, tf.maximum(rows, 0)) for name, values in self._slots.items()}


def current_slots(data: Any, columns: RawColumns) -> dict[str, np.ndarray]:
    """The catalogue's snapshot of each slot column, float32 ``[N]`` or ``[N, width]``.

    Raises:
        ValueError: for a slot column of which the catalogue holds no current values.
    """
    for column in columns.slot:
        if column.name not in data.snapshot_columns:
            raise ValueError(
                f'slot column "{column.name}" has no current values in the catalogue of {data.path}; '
                f"it has them for: {', '.join(data.snapshot_columns) or 'none'}"
            )
    if not columns.slot:
        return {}
    size = len(data.catalogue)
    values = {c.name: np.empty((size, c.width) if c.width > 1 else size, np.float32) for c in columns.slot}
    start = 0
    for batch in data.catalogue.batches(4096, columns=list(values)):
        stop = start + len(next(iter(batch.values())))
        for name, array in batch.items():
            values[name][start:stop] = array
        start = stop
    return values


def _write_ids(ids: Iterable[str], file: Path) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as out:
        for row, item in enumerate(ids):
            if any(part in item for part in _BREAKS):
                raise ValueError(
                    f"item id {item!r} (row {row} of the catalogue) holds a line break; a served model looks ids up in "
                    "a file of one id a line: rename the item"
                )
            out.write(f"{item}\n")


def _variable(array: np.ndarray) -> Any:
    """A variable that shares an array's memory: TensorFlow copies a numpy array, but not what DLPack hands over."""
    return tf.Variable(tf.experimental.dlpack.from_dlpack(array.__dlpack__()), trainable=False)
