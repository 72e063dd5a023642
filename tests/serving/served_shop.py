"""A shop of forty items, prepared, trained on and exported once for all serving and export tests."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tests.conftest import encode_picture, uncompiled

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 160, 60), "yellow": (240, 220, 40)}
CHINESE = {"red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色"}
KINDS = {"shirt": "衬衫", "shoe": "鞋", "bag": "包", "hat": "帽子"}
ITEMS = 40
PICTURES = [{"form": "JPEG"}, {"form": "PNG"}, {"form": "PNG", "mode": "RGBA"}, {"form": "JPEG", "mode": "L"}]

# float32 has 24 bits. A score of size 1 comes out of some twenty sums, and what is served adds them in another order
# than Keras where shapes differ (batched, padded, from the table). Observed: 5e-7.
TOLERANCE = 1e-5

# By id, tokens come from the item table, whose float16 of 11 bits rounds each of their numbers by up to 5e-4. Relative
# to a list's largest score. Observed: 4e-4.
TABLE_TOLERANCE = 2e-3

# Ids are opaque: a tab, a quote, Chinese and a space are all fine.
ODD_IDS = {5: 'tab\there "quoted"', 6: "商品六", 7: " space "}

MODEL: dict[str, Any] = {
    "dim": 16,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 200, "max_tokens": 8},
        "season": {
            "kind": "behaviour", "side": "query", "columns": ["user age", "season"], "categorical": ["season"],
        },
        "title": {"kind": "text", "columns": ["title"], "share": "query", "max_tokens": 6},
        "image": {"kind": "image", "columns": ["picture"], "size": 16},
        "facts": {"kind": "behaviour", "columns": ["price", "Brand"], "categorical": ["Brand"]},
        "past": {"kind": "behaviour", "side": "slot", "columns": ["past_impressions", "past_ctr", "age_days"]},
    },
    "fusion": {"kind": "gated"},
    "cross": {"layers": 1, "deep": [16]},
}  # fmt: skip


class Served(NamedTuple):
    """The shop, the ranker, and the exported model's folder."""

    prepared: Any
    ranker: Any
    model_dir: Path


def item_id(number: int) -> str:
    return ODD_IDS.get(number, f"i{number}")


def write_shop(folder: Path, items: int = ITEMS) -> dict[str, Any]:
    """Writes tables and pictures; returns the recipe's data part."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    colors, kinds = list(COLORS), list(KINDS)
    rows = []
    for i in range(items):
        color, kind = colors[i % 4], kinds[(i // 4) % 4]
        picture = ""
        if i % 9 != 3:  # some items have none
            form = PICTURES[i % 4]
            picture = f"{i}.{form['form'].lower()}"
            size = (20 + i % 7, 24)
            (folder / picture).write_bytes(encode_picture(COLORS[color], size, form["form"], form.get("mode", "RGB")))
        title = f"{CHINESE[color]}{KINDS[kind]}" if i % 5 == 0 else f"{kind} number {i}"
        rows.append(
            {
                "item_id": item_id(i), "title": "" if i == 11 else title, "picture": picture,
                "price": None if i % 8 == 2 else round(float(rng.lognormal(3, 1)), 2),
                "Brand": ["Acme", "Zenit", ""][i % 3], "added": f"2026-01-{1 + i % 20:02d}T00:00:00Z",
            }
        )  # fmt: skip
    queries, judgements, log = [], [], []
    for q in range(36):
        color, kind = colors[q % 4], kinds[(q // 4) % 4]
        text = f"{CHINESE[color]} {KINDS[kind]} {q}" if q % 3 == 0 else f"{color} {kind} {q}"
        split = "train" if q < 24 else "valid" if q < 28 else "test"
        queries.append(
            {
                "query_id": f"q{q}", "query": text, "split": split, "time": f"2026-02-{1 + q % 28:02d}T12:00:00Z",
                "user age": None if q % 5 == 0 else 20 + q, "season": ["", "summer", "winter"][q % 3],
            }
        )  # fmt: skip
        for i in rng.choice(items, 5 + q % 6, replace=False):
            grade = 2 * (colors[i % 4] == color) + (kinds[(i // 4) % 4] == kind)
            judgements.append({"query_id": f"q{q}", "item_id": item_id(i), "grade": grade})
            log.append(
                {
                    "query_id": f"q{q}", "item_id": item_id(i), "timestamp": f"2026-02-{1 + q % 28:02d}T13:00:00Z",
                    "position": 1 + len(log) % 5, "click": int(rng.random() < 0.2 + 0.2 * grade),
                }
            )  # fmt: skip
    for name, table in (("items", rows), ("queries", queries), ("judgements", judgements), ("log", log)):
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
    return {
        "name": "tiny",
        "items": {
            "table": "items.csv", "texts": ["title"], "image": "picture", "numeric": ["price"],
            "categorical": ["Brand"], "timestamp": "added",
        },
        "queries": {
            "table": "queries.csv", "split": "split", "timestamp": "time", "numeric": ["user age"],
            "categorical": ["season"],
        },
        "labels": {"kind": "judgements", "table": "judgements.csv"},
        "behaviour": {
            "logs": {"table": "log.csv"}, "features": ["past_impressions", "past_ctr", "age_days"],
        },
    }  # fmt: skip


def make_recipe(folder: Path, model: dict[str, Any] | None = None, items: int = ITEMS) -> Any:
    from tfmmrank.schema import Recipe

    data = write_shop(folder, items)
    return Recipe.from_dict({"data": data, "model": model or MODEL, "train": {"seed": 3}}, root=folder)


def assert_table_scores(got: Any, expected: Any) -> None:
    """Scores that came of the item table are those of ``predict`` as far as half precision goes."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=TABLE_TOLERANCE * np.abs(expected).max())


def shake(ranker: Any) -> None:
    """Moves every weight from where it starts, biases and scales too, as training would but faster."""
    rng = np.random.default_rng(11)
    ranker.set_weights([value + rng.normal(0, 0.1, value.shape) for value in ranker.get_weights()])


@functools.lru_cache(maxsize=1)
def make() -> Served:
    """Prepares, builds a ranker and exports it; the folder goes when Python ends."""
    from tfmmrank.data import prepare
    from tfmmrank.export import export
    from tfmmrank.training import build_ranker

    folder = Path(tempfile.mkdtemp(prefix="tfmmrank-served-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    recipe = make_recipe(folder / "shop")
    prepared = prepare(recipe, folder / "data", progress=False)
    ranker = build_ranker(recipe, prepared)
    shake(ranker.build_from_columns())
    ranker.compile()
    export(ranker, prepared, folder / "tiny", progress=False, facts={"ndcg@10": 0.5})
    return Served(prepared, ranker, folder / "tiny")


class Questions:
    """A split's lists as raw values, and what ``model.predict`` says of them.

    Args:
        served: the shop.
        now: whether slot features are the catalogue's current ones, as ``rank`` uses, instead of the lists' own.
    """

    def __init__(self, served: Served, now: bool, split: str = "test") -> None:
        from tfmmrank.data import Prepared

        data = Prepared.open(served.prepared.path)
        self.lists = data.lists(split)
        self.raw = data.catalogue.rows(self.lists.item_rows)
        self.slots = {name: self.raw[name] if now else self.lists.slots[name] for name in data.slot_columns}
        data._lists[split] = dataclasses.replace(self.lists, slots=self.slots)
        self.item_ids = data.catalogue.ids[self.lists.item_rows]
        with uncompiled():
            dataset = data.dataset(split, served.ranker, batch_size=4, progress=False)
            predicted = served.ranker.predict(dataset, verbose=0)
        self.predicted = [predicted[q, : self.size(q)] for q in range(len(self))]

    def __len__(self) -> int:
        return len(self.lists)

    def size(self, q: int) -> int:
        return int(self.lists.offsets[q + 1] - self.lists.offsets[q])

    def query(self, q: int) -> str:
        return self.lists.queries["query"][q].decode()

    def context(self, q: int) -> dict[str, Any]:
        return {"user age": self.lists.queries["user age"][q], "season": self.lists.queries["season"][q]}

    def ids(self, q: int) -> list[str]:
        return list(self.item_ids[self.lists.of(q)])

    def items(self, q: int) -> list[dict[str, Any]]:
        """Raw item and slot values, one mapping an item."""
        span = range(self.lists.of(q).start, self.lists.of(q).stop)
        columns = ("title", "picture", "price", "Brand")
        return [{**{c: self.raw[c][i] for c in columns}, **{c: v[i] for c, v in self.slots.items()}} for i in span]


if __name__ == "__main__":
    shutil.copytree(make().model_dir, Path(sys.argv[1]) / "tiny")
