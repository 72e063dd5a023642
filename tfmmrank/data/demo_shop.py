"""The demo shop: a made-up shop's export, in which every modality is needed and the truth is known.

Titles name only some of an item's attributes; colour, shape and pattern are in the picture, the material only in words;
quality shows in ratings and behaviour. ``demo_market`` says how true relevance follows from those.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tfmmrank.data import demo_market, demo_pictures, demo_words

_LOG_START = datetime(2026, 1, 1)
_LOG_DAYS = 60.0
_SESSIONS_PER_ITEM = 4.0
_SPLITS = {"train": 0.65, "valid": 0.10, "test": 0.25}

RECIPE: dict[str, Any] = {
    "data": {
        "name": "demo",
        "items": {
            "table": "items.parquet",
            "texts": ["title"],
            "image": "image",
            "numeric": ["price", "rating"],
            "categorical": ["brand", "category"],
            "timestamp": "added",
        },
        "queries": {"table": "queries.csv", "split": "split"},
        "labels": {"kind": "judgements", "table": "judgements.csv"},
        "behaviour": {
            "logs": {"table": "logs.parquet", "cart": "cart", "purchase": "purchase", "position": "position"},
        },
        "split": {"by": "column"},
    },
    "model": {
        "dim": 48,
        "towers": {
            "query": {"kind": "text", "side": "query", "columns": ["query"], "max_tokens": 12, "vocab_size": 2000,
                      "layers": 0},
            "title": {"kind": "text", "side": "item", "columns": ["title"], "share": "query", "max_tokens": 28},
            "image": {"kind": "pretrained_image", "side": "item", "columns": ["image"], "dropout": 0.2,
                      "encoder": {"source": "efficientnet_lite0", "size": 128, "crop": None}},
            "colours": {"kind": "pretrained_image", "side": "item", "columns": ["image"], "dropout": 0.1,
                        "encoder": "colours"},
            "attributes": {"kind": "behaviour", "side": "item", "columns": ["price", "rating", "brand", "category"],
                           "categorical": ["brand", "category"]},
            "behaviour": {"kind": "behaviour", "side": "slot",
                          "columns": ["past_impressions", "past_clicks", "past_carts", "past_purchases", "past_ctr",
                                      "past_cart_rate", "past_purchase_rate", "past_mean_position", "age_days"]},
        },
        "fusion": {"kind": "terms", "dropout": 0.2},
        "cross": {"layers": 1, "deep": [32], "dropout": 0.1},
    },
    "train": {"loss": "softmax_loss", "loss_options": {"gain": "exp2"}, "learning_rate": 0.003, "epochs": 30,
              "patience": 5, "batch_size": 16},
}  # fmt: skip


def make_demo_shop(out: str | Path, seed: int = 0, items: int = 3000, queries: int = 800) -> Path:
    """Writes a shop's export: tables, pictures, a behaviour log, and the recipe that trains on them.

    Written: ``items.parquet``, ``queries.csv``, ``judgements.csv``, ``logs.parquet``, ``images/``, ``shop.yaml``; and
    the hidden truth in ``truth/`` (attributes and quality by item, grades without noise), which nothing reads but
    people and tests. Grades of training and validation queries carry annotator noise; those of test queries are the
    truth. About 4% of the items have no picture, 1% a broken one, and 4% are new: never shown, never rated.

    Args:
        out: the folder, made when missing; files in it are overwritten.
        seed: one seed gives the same files byte for byte (on the same versions of the libraries).
        items: number of items.
        queries: number of queries; each asks for something else.

    Returns:
        The path of ``shop.yaml``.

    Raises:
        ValueError: for fewer than 100 items or 10 queries, or more queries than the items allow.
    """
    if items < 100 or queries < 10:
        raise ValueError(
            f"a demo shop of {items} items and {queries} queries; expected at least 100 items and 10 queries"
        )
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "truth").mkdir(exist_ok=True)
    seeds = np.random.SeedSequence(seed).spawn(7)
    rngs = [np.random.default_rng(child) for child in seeds]

    stock = demo_market.make_items(items, rngs[0])
    needs = demo_market.make_needs(queries, stock, rngs[1])
    splits = _assign_splits(queries)
    _items_table(stock, _write_pictures(out, stock, rngs[2]), rngs[3]).to_parquet(out / "items.parquet", index=False)
    _queries_table(needs, splits, rngs[4]).to_csv(out / "queries.csv", index=False, lineterminator="\n")
    judged, truth = _judgements(needs, splits, stock, rngs[5])
    judged.to_csv(out / "judgements.csv", index=False, lineterminator="\n")
    shoppers = [need for need, split in zip(needs, splits, strict=True) if split == "train"]
    traffic = demo_market.simulate_traffic(shoppers, stock, int(_SESSIONS_PER_ITEM * items), _LOG_DAYS, rngs[6])
    train_ids = np.array([_query_id(i) for i, split in enumerate(splits) if split == "train"])
    _logs_table(traffic, train_ids).to_parquet(out / "logs.parquet", index=False)
    truth.to_csv(out / "truth" / "grades.csv", index=False, lineterminator="\n")
    _truth_table(stock).to_csv(out / "truth" / "items.csv", index=False, lineterminator="\n")
    recipe = out / "shop.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return recipe


def _item_id(index: int) -> str:
    return f"i{index:05d}"


def _query_id(index: int) -> str:
    return f"q{index:04d}"


def _assign_splits(queries: int) -> list[str]:
    """Needs are drawn at random, so their order may part them."""
    train = round(_SPLITS["train"] * queries)
    valid = round(_SPLITS["valid"] * queries)
    return ["train"] * train + ["valid"] * valid + ["test"] * (queries - train - valid)


def _write_pictures(out: Path, stock: demo_market.Items, rng: np.random.Generator) -> list[str | None]:
    """Draws and writes the pictures; returns each item's path as its table has it."""
    paths: list[str | None] = []
    for index, attributes in enumerate(stock.attributes):
        png, fate = rng.random() < 0.2, rng.random()
        name = f"images/{_item_id(index)}.{'png' if png else 'jpg'}"
        content = demo_pictures.encode(demo_pictures.draw_item(attributes, rng), png)
        if fate < 0.02:  # the table names no picture
            paths.append(None)
            continue
        paths.append(name)
        if fate < 0.04:  # the table names a picture that is not there
            (out / name).unlink(missing_ok=True)
            continue
        if fate < 0.05:
            content = demo_pictures.broken_picture(content, index)
        (out / name).write_bytes(content)
    return paths


def _items_table(stock: demo_market.Items, pictures: list[str | None], rng: np.random.Generator) -> pd.DataFrame:
    end = _LOG_START + timedelta(days=_LOG_DAYS)
    rows = zip(stock.attributes, stock.brand, strict=True)
    return pd.DataFrame(
        {
            "item_id": [_item_id(i) for i in range(len(stock))],
            "title": [demo_words.title(attributes, brand, rng) for attributes, brand in rows],
            "image": pictures,
            "brand": [demo_words.BRANDS[brand] for brand in stock.brand],
            "category": [demo_words.CATEGORIES[kind] for kind in stock.attributes[:, 0]],
            "price": stock.price,
            "rating": stock.rating,
            "added": [(end - timedelta(days=float(age))).isoformat(timespec="seconds") for age in stock.age_days],
        }
    )


def _queries_table(needs: list[demo_words.Need], splits: list[str], rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query_id": [_query_id(i) for i in range(len(needs))],
            "query": [demo_words.query_text(need, rng) for need in needs],
            "language": ["zh" if need.chinese else "en" for need in needs],
            "split": splits,
        }
    )


def _judgements(
    needs: list[demo_words.Need], splits: list[str], stock: demo_market.Items, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judgements as a shop has them, and the truth, row by row alike."""
    judged, truth = [], []
    for index, (need, split) in enumerate(zip(needs, splits, strict=True)):
        chosen = demo_market.candidates(need, stock, rng)
        true = demo_market.true_grades(need, stock)[chosen]
        given = true if split == "test" else demo_market.annotate(true, rng)
        ids = [_item_id(i) for i in chosen]
        judged.append(pd.DataFrame({"query_id": _query_id(index), "item_id": ids, "grade": given}))
        truth.append(pd.DataFrame({"query_id": _query_id(index), "item_id": ids, "grade": true}))
    return pd.concat(judged, ignore_index=True), pd.concat(truth, ignore_index=True)


def _logs_table(traffic: demo_market.Traffic, query_ids: np.ndarray) -> pd.DataFrame:
    start = np.datetime64(_LOG_START, "ms")
    return pd.DataFrame(
        {
            "query_id": query_ids[traffic.query],
            "item_id": np.array([_item_id(i) for i in range(traffic.item.max() + 1)])[traffic.item],
            "user_id": [f"u{session * 7919 % 5003:04d}" for session in traffic.session.tolist()],
            "timestamp": start + (traffic.seconds * 1000).astype("timedelta64[ms]"),
            "position": traffic.position,
            "propensity": traffic.propensity,
            "click": traffic.click.astype(np.int8),
            "cart": traffic.cart.astype(np.int8),
            "purchase": traffic.purchase.astype(np.int8),
        }
    )


def _truth_table(stock: demo_market.Items) -> pd.DataFrame:
    table: dict[str, Any] = {"item_id": [_item_id(i) for i in range(len(stock))]}
    for column, (name, words) in enumerate(zip(demo_words.ATTRIBUTES, demo_words.WORDS, strict=True)):
        table[name] = [words[value][0] for value in stock.attributes[:, column]]
    return pd.DataFrame(
        {**table, "quality": stock.quality.round(4), "quality_step": stock.quality_step, "new": stock.new}
    )
