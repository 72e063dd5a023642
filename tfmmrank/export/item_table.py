"""The item table: what the ranker knows of every catalogue item, computed once and looked up by id when serving."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tfmmrank.data.feature_store import item_features
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens

_BATCH = 256
_BREAKS = ("\n", "\r")  # TensorFlow's line reader ends a line at one and drops the other


class ItemTable:
    """Tokens of the item towers and current values of the slot columns, by row; ids to rows.

    Row N, one past the catalogue, is the unknown item: its tokens are masked and its numbers missing. The matrices are
    variables and the ids an asset file, because constants would count against the 2 GB that a graph may have.

    Args:
        ranker: a trained ``Ranker``.
        data: a ``Prepared`` dataset with a catalogue.
        columns: the ranker's columns.
        ids_file: where to write the ids; the file must live until the SavedModel is written.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for an id that holds a line break, or a slot column of which the catalogue holds no current values.
    """

    def __init__(self, ranker: Any, data: Any, columns: RawColumns, ids_file: Path, progress: bool = True) -> None:
        self.size = len(data.catalogue)
        _write_ids(data.catalogue.ids, ids_file)
        with tf.device("CPU:0"):
            self.rows_of_ids = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(
                    str(ids_file),
                    key_dtype=tf.string,
                    key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                    value_dtype=tf.int64,
                    value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                default_value=self.size,
            )
            self._tokens = _encode_catalogue(ranker, data, self.size, progress)
            self._slots = _current_slots(data, columns, self.size)

    def rows(self, ids: Any) -> Any:
        """Ids, string of any shape, to rows, int64; ``size`` where unknown."""
        return self.rows_of_ids.lookup(ids)

    def tokens(self, rows: Any) -> dict[str, Tokens]:
        """Rows ``[B, L]`` to ``{item tower: Tokens [B, L, T, d]}``."""
        return {
            name: Tokens(tf.gather(tokens.values, rows), tf.gather(tokens.mask, rows))
            for name, tokens in self._tokens.items()
        }

    def slots(self, rows: Any) -> dict[str, Any]:
        """Rows ``[B, L]`` to current raw values of the slot columns, ``[B, L]`` or ``[B, L, width]``."""
        return {name: tf.gather(values, rows) for name, values in self._slots.items()}


def _write_ids(ids: Iterable[str], file: Path) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as out:
        for row, item in enumerate(ids):
            if any(part in item for part in _BREAKS):
                raise ValueError(
                    f"item id {item!r} (row {row} of the catalogue) holds a line break; a served model looks ids up in "
                    "a file of one id a line: rename the item"
                )
            out.write(f"{item}\n")


def _encode_catalogue(ranker: Any, data: Any, size: int, progress: bool) -> dict[str, Tokens]:
    """Runs the item towers over the catalogue, straight into variables of one row more than items."""
    features = {
        f"item/{tower.name}/{name}": array
        for tower in ranker.side("item")
        for name, array in item_features(data, tower, progress).items()
    }
    if not features:
        return {}
    encode = tf.function(lambda batch: ranker.encode_items(batch, training=False), autograph=False)
    table: dict[str, Tokens] = {}
    bar = tqdm(total=size, desc="encode items", unit="item", disable=not progress, leave=False)
    for start in range(0, size, _BATCH):
        stop = min(start + _BATCH, size)
        # The last batch is filled up with its first rows: one shape, so that the towers are traced once.
        rows = np.resize(np.arange(start, stop), _BATCH)
        for name, tokens in encode({key: tf.constant(array[rows]) for key, array in features.items()}).items():
            if name not in table:
                table[name] = _empty(name, size + 1, tokens)
            table[name].values[start:stop].assign(tokens.values[: stop - start])
            table[name].mask[start:stop].assign(tokens.mask[: stop - start])
        bar.update(stop - start)
    bar.close()
    return table


def _empty(name: str, rows: int, like: Tokens) -> Tokens:
    values = tf.zeros([rows, *like.values.shape[1:]], like.values.dtype)
    mask = tf.zeros([rows, *like.mask.shape[1:]], tf.bool)
    return Tokens(
        tf.Variable(values, trainable=False, name=f"{name}_tokens"),
        tf.Variable(mask, trainable=False, name=f"{name}_mask"),
    )


def _current_slots(data: Any, columns: RawColumns, size: int) -> dict[str, Any]:
    """The catalogue's snapshot of each slot column, with a missing row at the end."""
    for column in columns.slot:
        if column.name not in data.snapshot_columns:
            raise ValueError(
                f'slot column "{column.name}" has no current values in the catalogue of {data.path}; '
                f"it has them for: {', '.join(data.snapshot_columns) or 'none'}"
            )
    if not columns.slot:
        return {}
    values = {
        c.name: np.full((size + 1, c.width) if c.width > 1 else size + 1, np.nan, np.float32) for c in columns.slot
    }
    start = 0
    for batch in data.catalogue.batches(4096, columns=list(values)):
        stop = start + len(next(iter(batch.values())))
        for name, array in batch.items():
            values[name][start:stop] = array
        start = stop
    return {name: tf.Variable(array, trainable=False, name=f"{name}_now") for name, array in values.items()}
