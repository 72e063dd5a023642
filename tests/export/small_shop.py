"""A shop in memory and a small ranker with list context: what export's parts are tested with one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import encode_picture
from tests.serving.served_shop import shake
from tests.tiny_shop import ServedShop, make_recipe
from tfmmrank.training import build_ranker

MODEL = {
    "dim": 8,
    "towers": {
        "query": {"kind": "text", "side": "query", "columns": ["query"], "vocab_size": 60, "max_tokens": 6},
        "title": {"kind": "text", "columns": ["title"], "share": "query", "max_tokens": 6},
        "facts": {"kind": "behaviour", "columns": ["price", "brand"], "categorical": ["brand"]},
        "past": {"kind": "behaviour", "side": "slot", "columns": ["past_clicks"]},
    },
    "fusion": {"kind": "mean"},
    "cross": {"layers": 1, "deep": [8]},
    "context": {"heads": 1, "head_size": 8},
}


def make_shop(folder: Path) -> ServedShop:
    return ServedShop(folder, encode_picture, lists=8)


def make_ranker(shop: ServedShop, model: dict[str, Any] = MODEL) -> Any:
    ranker = build_ranker(make_recipe(model), shop)
    shake(ranker.build_from_columns())
    ranker.compile()
    return ranker
