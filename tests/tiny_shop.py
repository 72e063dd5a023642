"""A prepared dataset in memory: forty items, a few lists; what towers, ranker and training are tested with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfmmrank.data.lists import Lists

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 160, 60), "yellow": (240, 220, 40)}
CHINESE = {"red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色"}
TYPES = ["shirt", "shoe", "bag", "hat"]


def as_bytes(values) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = [value if isinstance(value, bytes) else value.encode() for value in values]
    return out


class MemoryCatalogue:
    def __init__(self, ids, columns) -> None:
        self.ids, self._columns = np.array(ids, object), columns
        self._rows = {item: row for row, item in enumerate(ids)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def columns(self):
        return list(self._columns)

    def row_of(self, ids):
        return np.array([self._rows.get(item, -1) for item in ids], np.int32)

    def rows(self, indices, columns=None):
        wanted = self._columns if columns is None else columns
        return {name: self._columns[name][np.asarray(indices)] for name in wanted}

    def batches(self, size, columns=None):
        for start in range(0, len(self), size):
            yield {n: v[start : start + size] for n, v in self._columns.items() if columns is None or n in columns}


class MemoryShop:
    """Titles name the type, pictures show the colour, past_clicks tells the better of two equal items."""

    query_columns = {"query": "text"}
    item_columns = {"title": "text", "image": "image", "price": "numeric", "brand": "categorical"}
    slot_columns = {"past_clicks": 1}

    build = "in memory"

    def __init__(self, path: Path, picture, seed: int = 0, lists: int = 24) -> None:
        rng = np.random.default_rng(seed)
        self.path = Path(path)
        self.splits = ["train", "valid", "test"]
        colors = [list(COLORS)[i % 4] for i in range(40)]
        types = [TYPES[(i // 4) % 4] for i in range(40)]
        pictures = [picture(COLORS[color], form="JPEG" if i % 2 else "PNG") for i, color in enumerate(colors)]
        pictures[3], pictures[7] = b"", b""
        self.clicks = rng.integers(0, 50, 40).astype(np.float32)
        self.catalogue = MemoryCatalogue(
            [f"i{i}" for i in range(40)],
            {
                "title": as_bytes([f"{kind} model {i}" for i, kind in enumerate(types)]),
                "image": as_bytes(pictures),
                "price": np.where(rng.random(40) < 0.1, np.nan, rng.lognormal(3, 1, 40)).astype(np.float32),
                "brand": as_bytes([["Acme", "Zenit", ""][i % 3] for i in range(40)]),
                "past_clicks": self.clicks,
            },
        )
        self._lists = {}
        for number, split in enumerate(self.splits):
            self._lists[split] = self._make_lists(np.random.default_rng([seed, number]), split, lists, colors, types)

    def _make_lists(self, rng, split, count, colors, types) -> Lists:
        texts, rows, labels, offsets = [], [], [], [0]
        for _ in range(count):
            color, kind = rng.choice(list(COLORS)), rng.choice(TYPES)
            texts.append(f"{CHINESE[color] if rng.random() < 0.3 else color} {kind}")
            chosen = rng.choice(40, rng.integers(5, 12), replace=False)
            rows += chosen.tolist()
            labels += [2 * (colors[i] == color) + (types[i] == kind) + (self.clicks[i] > 25) * 0.5 for i in chosen]
            offsets.append(len(rows))
        rows = np.array(rows, np.int32)
        return Lists(
            np.array([f"{split}-{i}" for i in range(count)], object), {"query": as_bytes(texts)},
            np.array(offsets, np.int64), rows, np.array(labels, np.float32), np.ones(len(rows), np.float32),
            {"past_clicks": self.clicks[rows]},
        )  # fmt: skip

    def lists(self, split):
        return self._lists[split]

    def dataset(self, split, model, **options):
        from tfmmrank.data.batches import make_dataset

        return make_dataset(self, split, model, **{"progress": False, **options})

    def scores(self, model, split="test") -> np.ndarray:
        """What ``predict`` gives, op by op: tracing a graph would take longer than these few lists."""
        return np.concatenate([model(batch).numpy() for batch, *_ in self.dataset(split, model, batch_size=8)])


class ServedShop(MemoryShop):
    """With the column of which an exported model holds each item's current value."""

    snapshot_columns = ["past_clicks"]


RECIPE_MODEL = {
    "dim": 32,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 200, "max_tokens": 8},
        "title": {"kind": "text", "columns": ["title"], "share": "query", "max_tokens": 10},
        "image": {"kind": "image", "columns": ["image"], "size": 32},
        "attributes": {"kind": "behaviour", "columns": ["price", "brand"], "categorical": ["brand"]},
        "behaviour": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    },
    "fusion": {"kind": "gated"},
    "cross": {"layers": 1, "deep": [32]},
}


def make_recipe(model=RECIPE_MODEL, **train):
    from tfmmrank.schema import Recipe

    labels = {"kind": "elwc", "files": {"train": ["unused"]}, "features": {}}
    return Recipe.from_dict({"data": {"labels": labels}, "model": model, "train": train})
