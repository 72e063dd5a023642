"""Rows of features on disk, each beside a digest of the raw values that it was made of.

A folder of them holds ``features.json`` (the features' names), ``0.npy``, ``1.npy``, … (their values,
``[num_items, ...]``) and ``digests.npy`` (``[num_items]``, empty where the row is not there yet). A row is never
changed once its digest stands: whoever finds the digest that it looks for may take the row, whatever became of its
writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

NAMES_FILE, DIGESTS_FILE = "features.json", "digests.npy"
DIGEST = np.dtype("S16")
FLUSH_SECONDS = 5.0


def digests_of(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Digests of rows of raw values.

    Args:
        columns: raw columns ``[n]``: objects of bytes, or float32.

    Returns:
        Array ``[n]`` of 16 bytes, never empty; equal where all values are.
    """
    digests = np.empty(len(columns[0]), DIGEST)
    for row, values in enumerate(zip(*(_as_bytes(column) for column in columns), strict=True)):
        digest = hashlib.blake2b(digest_size=DIGEST.itemsize)
        for value in values:
            digest.update(len(value).to_bytes(8, "little"))
            digest.update(value)
        digests[row] = digest.digest()
    return digests


def _as_bytes(column: np.ndarray) -> Sequence[bytes]:
    if column.dtype == object:
        return column.tolist()
    one_nan = np.where(np.isnan(column), np.float32(np.nan), column).astype("<f4")
    return [value.tobytes() for value in one_nan]


def match(wanted: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Where each wanted digest stands among others: int64 ``[len(wanted)]``, −1 where it does not."""
    if not len(digests):
        return np.full(len(wanted), -1)
    # Sorted by their first halves: numbers sort faster, and two digests that agree there are as good as never.
    first = np.ascontiguousarray(digests.view("<u8")[::2])
    order = np.argsort(first)
    places = np.searchsorted(first, wanted.view("<u8")[::2], sorter=order)
    rows = order[places.clip(max=len(digests) - 1)]
    return np.where(digests[rows] == wanted, rows, -1)


@dataclass(frozen=True)
class FeatureRows:
    """What a folder holds, memory-mapped.

    Attributes:
        digests: ``[num_items]``, empty where the row is not there yet.
        features: ``{name: [num_items, ...]}``.
    """

    digests: np.ndarray
    features: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path) -> FeatureRows:
        """Maps a folder's arrays. Raises OSError or ValueError when they are not all there."""
        names = json.loads((folder / NAMES_FILE).read_text("utf-8"))
        try:
            digests = np.load(folder / DIGESTS_FILE, mmap_mode="r")
            features = {name: np.load(folder / f"{i}.npy", mmap_mode="r") for i, name in enumerate(names)}
        except EOFError as error:
            raise ValueError(str(error)) from error
        if any(len(array) != len(digests) for array in features.values()):
            raise ValueError(f"arrays of {folder} differ in their number of rows")
        return cls(digests, features)


def _layout(features: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Names, types and shapes past the first axis, to compare and to show."""
    return {name: f"{array.dtype} {list(array.shape[1:])}" for name, array in features.items()}


class RowWriter:
    """Writes rows of features, in any order, into a new folder.

    A row's digest follows its values to disk, so that a killed run leaves no digest without them. Plain writes, not
    mapped ones: on a full disk those raise OSError, these would kill the process.

    Args:
        folder: made with the first rows.
        num_items: how many rows there will be.
    """

    def __init__(self, folder: Path, num_items: int) -> None:
        self.folder, self.num_items = folder, num_items
        self._layout: dict[str, str] | None = None
        self._files: list[_ArrayFile] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._flushed = time.monotonic()

    def write(self, rows: np.ndarray, digests: np.ndarray, features: Mapping[str, np.ndarray]) -> None:
        """Writes rows: their numbers ``[n]``, digests ``[n]`` and features ``{name: [n, ...]}``.

        Raises:
            ValueError: for other names, types or shapes than those of the rows before.
        """
        if self._layout is None:
            self._create(features)
        if _layout(features) != self._layout:
            raise ValueError(f"embed gave {_layout(features)}, and of other items {self._layout}")
        for file, name in zip(self._files, self._layout, strict=False):
            file.write(rows, features[name])
        self._waiting.append((rows, digests))
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Brings the rows written so far to disk, then their digests."""
        if self._layout is None:
            return
        *arrays, digest_file = self._files
        for file in arrays:
            file.sync()
        for rows, digests in self._waiting:
            digest_file.write(rows, digests)
        self._waiting.clear()
        digest_file.sync()
        self._flushed = time.monotonic()

    def _create(self, features: Mapping[str, np.ndarray]) -> None:
        self.folder.mkdir()
        for i, array in enumerate(features.values()):
            self._files.append(_ArrayFile(self.folder / f"{i}.npy", array.dtype, (self.num_items, *array.shape[1:])))
        self._files.append(_ArrayFile(self.folder / DIGESTS_FILE, DIGEST, (self.num_items,)))
        (self.folder / NAMES_FILE).write_text(json.dumps(list(features)), "utf-8")
        self._layout = _layout(features)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Flushes, also when stopped by an error: what is there is kept."""
        try:
            if kind is None and self._layout is None:
                self._create({})
            with contextlib.suppress(*[OSError] if kind is not None else []):  # the error that stopped it is told
                self.flush()
        finally:
            for file in self._files:
                file.close()


class _ArrayFile:
    """A ``.npy`` file of known shape, written row by row."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._file: BinaryIO = open(path, "x+b")  # noqa: SIM115 - closed by close
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})
        self._start, self._row = self._file.tell(), dtype.itemsize * int(np.prod(shape[1:]))
        self._file.truncate(self._start + shape[0] * self._row)

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Writes values ``[n, ...]`` at rows ``[n]``, neighbours at once."""
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            if len(part):
                self._file.seek(self._start + int(rows[part[0]]) * self._row)
                self._file.write(values[part[0] : part[-1] + 1].tobytes())

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be written now was no one's to rely on: see flush
            self._file.close()
