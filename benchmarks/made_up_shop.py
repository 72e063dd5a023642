"""A shop made up in memory: items of random words and pictures, and lists that repeat them as often as wanted."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfmmrank.data.lists import Lists

_VOCABULARY = [f"word{number}" for number in range(900)]
_PICTURES = 100  # many items share one


class MadeUpShop:
    """What a ``Prepared`` dataset offers to training, without a preparation.

    Args:
        path: where feature stores go.
        items: in the catalogue.
        lists: of the split ``train``.
        list_size: items a list, all of them different.
        repetition: slots of a batch for each distinct item in it, at least about 1.
        batch_size: of the batches that repeat so.
        seed: of the random numbers.
    """

    def __init__(
        self,
        path: Path,
        items: int = 4000,
        lists: int = 512,
        list_size: int = 16,
        repetition: float = 1.0,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.path, self.build, self.splits = path, f"made-up-{items}-{seed}", ["train"]
        self.query_columns, self.slot_columns = {"query": "text"}, dict[str, int]()
        self.item_columns = {"title": "text", "image": "image"}
        rng = np.random.default_rng(seed)
        self.catalogue = _Catalogue(
            {"title": _texts(rng, items, 10), "image": _pictures(rng)[rng.integers(0, _PICTURES, items)]}
        )
        pool = min(items, _pool(batch_size * list_size, repetition, items, list_size))
        rows = np.concatenate([rng.choice(pool, list_size, replace=False) for _ in range(lists)])
        self._lists = Lists(
            np.array([f"q{number}" for number in range(lists)], object),
            {"query": _texts(rng, lists, 3)},
            np.arange(lists + 1, dtype=np.int64) * list_size,
            rows.astype(np.int32),
            rng.integers(0, 4, len(rows)).astype(np.float32),
            np.ones(len(rows), np.float32),
            {},
        )

    def lists(self, split: str) -> Lists:
        """The lists, whatever the split is called."""
        return self._lists


def _pool(slots: int, repetition: float, items: int, list_size: int) -> int:
    """Of how many items lists must be drawn so that a batch has ``slots / repetition`` distinct ones, on average."""
    if repetition <= 1.0:
        return items
    sizes = np.arange(list_size, items + 1, dtype=np.float64)
    lists = slots // list_size
    distinct = sizes * (1.0 - (1.0 - list_size / sizes) ** lists)
    return int(sizes[np.argmin(np.abs(distinct - slots / repetition))])


class _Catalogue:
    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def rows(self, indices: Any, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """As ``Catalogue.rows``."""
        return {name: self._columns[name][np.asarray(indices)] for name in columns}

    def batches(self, size: int, columns: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """As ``Catalogue.batches``."""
        for start in range(0, len(self), size):
            yield {name: self._columns[name][start : start + size] for name in columns}


def _texts(rng: np.random.Generator, count: int, words: int) -> np.ndarray:
    chosen = np.array(_VOCABULARY, object)[rng.integers(0, len(_VOCABULARY), (count, words))]
    return _objects([" ".join(line).encode() for line in chosen])


def _pictures(rng: np.random.Generator) -> np.ndarray:
    encoded = []
    for pixels in rng.integers(0, 256, (_PICTURES, 8, 8, 3), np.uint8):
        out = io.BytesIO()
        Image.fromarray(pixels).resize((96, 96)).save(out, "JPEG")
        encoded.append(out.getvalue())
    return _objects(encoded)


def _objects(values: Sequence[bytes]) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out
