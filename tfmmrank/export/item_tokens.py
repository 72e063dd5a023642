"""Tokens of the catalogue's items, computed in batches straight into mapped files of half precision."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tfmmrank.data.feature_rows import DIGEST, digests_of
from tfmmrank.data.feature_store import item_features
from tfmmrank.export.raw_inputs import RawColumns
from tfmmrank.stack import tf
from tfmmrank.tokens import Tokens

BATCH = 256  # items encoded at once
DIGESTS_FILE = "assets.extra/item_digests.npy"
_READ = 1024  # items read at once

Batch = tuple[np.ndarray, dict[str, np.ndarray]]


class ItemTokens(NamedTuple):
    """One item tower's tokens by row.

    Attributes:
        values: float16 ``[N, T, d]``.
        mask: bool ``[N, T]``.
        dtype: the tower's own, which a request's rows are brought back to.
    """

    values: np.ndarray
    mask: np.ndarray
    dtype: str


class Items(NamedTuple):
    """What a version holds of its items, by row.

    Attributes:
        tokens: by item tower.
        digests: of what the towers read of each item, 16 bytes ``[N]``: equal digests, equal tokens.
    """

    tokens: dict[str, ItemTokens]
    digests: np.ndarray


class TokenFiles:
    """Tokens of N items by row, in any order of writing: values float16, mask bool.

    Half precision halves a served model's memory. Its 11 bits round a token's numbers by up to 1 in 2,048, about as
    much as what frozen encoders give is rounded in the feature store. The files are mapped: a table larger than memory
    can be made, and a full disk is an error before the first row.

    Args:
        folder: for the files; they go with it.
        ids: the items' ids by row, to name one in an error.

    Attributes:
        tokens: by item tower.
    """

    def __init__(self, folder: Path, ids: np.ndarray) -> None:
        self.folder, self.ids = folder, ids
        self.tokens: dict[str, ItemTokens] = {}

    def create(self, name: str, token_shape: tuple[int, ...], dtype: str) -> ItemTokens:
        """Makes a tower's files, for values ``[N, *token_shape]``. Raises OSError when there is no room."""
        size, place = len(self.ids), len(self.tokens)
        self.tokens[name] = ItemTokens(
            _mapped(self.folder / f"{place}.values", np.float16, (size, *token_shape)),
            _mapped(self.folder / f"{place}.mask", np.bool_, (size, *token_shape[:1])),
            dtype,
        )
        return self.tokens[name]

    def write(self, rows: np.ndarray, name: str, tokens: Tokens) -> None:
        """Writes a tower's tokens of some rows ``[n]``: values ``[n, T, d]``, mask ``[n, T]``.

        Raises:
            ValueError: for a value that float16 does not hold.
        """
        if name not in self.tokens:
            self.create(name, tokens.values.shape[1:], tokens.values.dtype.name)
        files = self.tokens[name]
        shown = np.where(tokens.mask[..., None], tokens.values, 0)
        with np.errstate(over="ignore"):
            files.values[rows] = halves = shown.astype(np.float16)
        files.mask[rows] = tokens.mask
        if not np.isfinite(halves).all():
            row, *place = np.argwhere(~np.isfinite(halves))[0]
            raise ValueError(
                f'tower "{name}" gives item "{self.ids[rows[row]]}" a token that holds {shown[(row, *place)]}; '
                "expected numbers from -65504 to 65504: the item table of a served model is kept in float16 (end the "
                "tower with a normalisation)"
            )


def encode(ranker: Any, batches: Iterable[Batch], files: TokenFiles, total: int, progress: bool) -> None:
    """Runs the item towers.

    Args:
        ranker: the ``Ranker``.
        batches: rows ``[n]`` and what their items were embedded to, ``{"item/TOWER/FEATURE": [n, ...]}``, with n up to
            ``BATCH``.
        files: where the tokens go.
        total: rows in all.
        progress: whether to show a progress bar.
    """
    run = tf.function(lambda batch: ranker.encode_items(batch, training=False), autograph=False)
    with tqdm(total=total, desc="encode items", unit="item", disable=not progress, leave=False) as bar:
        for rows, features in batches:
            # The last batch is filled up with its first rows: one shape, so that the towers are traced once.
            full = np.resize(np.arange(len(rows)), BATCH)
            encoded = run({name: tf.constant(array[full]) for name, array in features.items()})
            for name, tokens in encoded.items():
                files.write(rows, name, Tokens(*(part.numpy()[: len(rows)] for part in tokens)))
            bar.update(len(rows))


def encode_catalogue(ranker: Any, data: Any, columns: RawColumns, folder: Path, progress: bool) -> Items:
    """Tokens of every item, in files of a folder, from the feature store."""
    files = TokenFiles(folder, data.catalogue.ids)
    features = {
        f"item/{tower.name}/{name}": array
        for tower in ranker.side("item")
        for name, array in item_features(data, tower, progress).items()
    }
    if features:
        size = len(files.ids)
        encode(ranker, _in_order(features, size), files, size, progress)
    return Items(files.tokens, item_digests(data, columns, progress))


def item_digests(data: Any, columns: RawColumns, progress: bool) -> np.ndarray:
    """Digests ``[N]`` of the raw values that the item towers read."""
    names = [column.name for column in columns.item]
    digests, start = np.full(len(data.catalogue), b"nothing is read", DIGEST), 0
    with tqdm(total=len(digests), desc="digest items", unit="item", disable=not progress, leave=False) as bar:
        for raw in data.catalogue.batches(_READ, columns=names) if names else ():
            part = digests_of([raw[name] for name in names])
            digests[start : start + len(part)] = part
            start += len(part)
            bar.update(len(part))
    return digests


def write_digests(digests: np.ndarray, directory: Path) -> None:
    """Keeps the items' digests in a version."""
    file = directory / DIGESTS_FILE
    file.parent.mkdir(exist_ok=True)
    np.save(file, digests)


def _in_order(features: Mapping[str, np.ndarray], size: int) -> Iterator[Batch]:
    for start in range(0, size, BATCH):
        stop = min(start + BATCH, size)
        yield np.arange(start, stop), {name: array[start:stop] for name, array in features.items()}


def _mapped(file: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A new file of zeros, mapped. Its room is taken first: a full disk under a mapped file would kill the process."""
    with open(file, "xb") as out:
        os.posix_fallocate(out.fileno(), 0, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.memmap(file, dtype, "r+", shape=shape)
