"""Models for the benchmarks to serve: made up and untrained, since how long an answer takes does not depend on it.

Each is made once a run of the command, by the code as it is: tables, dataset, ranker and export.
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

_PICTURES_ITEMS, _PICTURES_QUERIES = 1500, 200
_SHOP: dict[str, Any] = {
    "dim": 64,
    "towers": {
        "query": {
            "kind": "pretrained_text", "side": "query", "columns": ["query"], "encoder": "minilm", "max_tokens": 16,
        },
        "title": {"kind": "pretrained_text", "columns": ["title"], "share": "query", "max_tokens": 24},
        "image": {"kind": "pretrained_image", "columns": ["image"], "encoder": {"source": "efficientnet_lite0"}},
        "past": {"kind": "behaviour", "side": "slot", "columns": ["past_impressions", "past_ctr", "age_days"]},
    },
    "match": {"title": {"kind": "cosine", "query": "query", "item": "title"}},
    "fusion": {"kind": "gated"},
    "cross": {"layers": 2, "deep": [128, 64]},
}  # fmt: skip
_TABLE: dict[str, Any] = {
    "dim": 64,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 1000, "max_tokens": 8},
        "facts": {"kind": "behaviour", "columns": ["price", "rating", "brand"], "categorical": ["brand"]},
    },
    "fusion": {"kind": "gated"},
    "cross": {"layers": 2, "deep": [128, 64]},
}  # fmt: skip


class Model(NamedTuple):
    """An exported model, and the dataset that its requests are made of."""

    folder: Path
    data: Any


@functools.cache
def shop_model(out: Path, size: int = 128) -> Model:
    """The demo shop: MiniLM for query and title, EfficientNet-Lite0 for pictures of that size, numeric behaviour."""
    from tfmmrank.data.demo_shop import make_demo_shop

    folder = out / "shop-tables"
    make_demo_shop(folder, 0, _PICTURES_ITEMS, _PICTURES_QUERIES)
    content = yaml.safe_load((folder / "shop.yaml").read_text("utf-8"))
    content["model"] = copy.deepcopy(_SHOP)
    content["model"]["towers"]["image"]["encoder"] |= {"size": size, "crop": None}
    content["data"]["behaviour"]["features"] = _SHOP["towers"]["past"]["columns"]
    return _model(content, folder, out, f"shop{size}")


@functools.cache
def table_model(out: Path, items: int) -> Model:
    """A catalogue of so many items with a token of 64 numbers each, of three columns; queries by a small text tower."""
    folder = out / f"table-{items}-tables"
    _write_tables(folder, items)
    content = {
        "data": {
            "name": f"table{items}",
            "items": {"table": "items.parquet", "numeric": ["price", "rating"], "categorical": ["brand"]},
            "queries": {"table": "queries.csv", "split": "split"},
            "labels": {"kind": "judgements", "table": "judgements.csv"},
        },
        "model": _TABLE,
    }
    return _model(content, folder, out, f"table{items}")


def megabytes(folder: Path) -> float:
    """What a folder's files take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _model(content: Mapping[str, Any], root: Path, out: Path, name: str) -> Model:
    from tfmmrank.data import prepare
    from tfmmrank.export import export
    from tfmmrank.schema import Recipe
    from tfmmrank.training import build_ranker

    recipe = Recipe.from_dict(json.loads(json.dumps(content)), root=root)
    data = prepare(recipe, out / f"{name}-data", progress=False)
    ranker = build_ranker(recipe, data, progress=False).build_from_columns()
    folder = out / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    export(ranker, data, folder, 1, progress=False)
    return Model(folder, data)


def _write_tables(folder: Path, items: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "item_id": [f"item-{number:07d}" for number in range(items)],
            "price": rng.lognormal(3, 1, items).round(2),
            "rating": rng.uniform(1, 5, items).round(2),
            "brand": rng.choice([f"brand {number}" for number in range(200)], items),
        }
    ).to_parquet(folder / "items.parquet")
    queries = [f"q{number}" for number in range(100)]
    splits = ["train"] * 60 + ["valid"] * 20 + ["test"] * 20
    texts = [f"red shoe {number}" for number in range(100)]
    pd.DataFrame({"query_id": queries, "query": texts, "split": splits}).to_csv(folder / "queries.csv", index=False)
    rows = [
        {"query_id": query, "item_id": f"item-{row:07d}", "grade": int(rng.integers(0, 4))}
        for query in queries
        for row in rng.choice(items, 20, replace=False)
    ]
    pd.DataFrame(rows).to_csv(folder / "judgements.csv", index=False)
